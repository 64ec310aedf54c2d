"""`pseudolabel demo`: scenes that it draws for itself, and the way through all stages."""
