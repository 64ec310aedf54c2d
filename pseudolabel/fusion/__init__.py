"""From many candidate masks of an object to one mask, and a score that says how good it is."""
