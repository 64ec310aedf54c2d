"""Models that give a mask for a box: promptable ones (the SAM family) and class-agnostic ones on the box's crop."""
