"""Boxes and pretrained semantic segmenters in, scored instance masks out."""

__version__ = "0.1.0"
