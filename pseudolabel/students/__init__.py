"""Students: instance segmenters that learn from pseudo labels, each mask by what its score is worth."""
