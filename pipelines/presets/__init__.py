"""Run files that work as they are."""
