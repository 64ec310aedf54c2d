"""A run folder: its paths, its plan, what is done in it and how that is known."""
