"""Encoders by name, from a segmenter's own file, at the strides that heads want."""
