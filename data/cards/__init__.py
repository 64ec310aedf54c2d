"""Model cards of the segmenters in `data/models.yaml`."""
