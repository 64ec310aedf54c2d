"""Losses that teachers and students share: boxes, colour neighbours, colours."""
