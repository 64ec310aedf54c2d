"""Readers: what a user has on disk, as rows of the manifest."""
