"""Mask teachers that learn from boxes."""
