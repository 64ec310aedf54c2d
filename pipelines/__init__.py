"""What runs, in which order, where, and what is already done; no model code."""
