"""How good masks and their scores are, measured against true masks."""
