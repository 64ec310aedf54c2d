"""Semantic segmenters: every source of a label map with confidences, behind one interface."""
