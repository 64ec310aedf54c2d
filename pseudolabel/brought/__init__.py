"""Masks that a user brings: read from whatever form they have, matched with the objects of a run, made candidates."""
