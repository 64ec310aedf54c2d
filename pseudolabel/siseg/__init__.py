"""Instances out of semantic masks, by a displacement field and a class-agnostic boundary (docs/methods.md).

Source: Shen et al., SISeg (arXiv 2308.00949); where its text is silent the values are those of IRNet (Ahn et al. 2019).
"""
