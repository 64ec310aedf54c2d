"""Errors in given boxes and masks, by what the boxes themselves say and by what a segmenter and fused masks show."""
