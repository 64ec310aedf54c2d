"""The box-conditioned teacher (Mask Auto-Labeler and what came after)."""
