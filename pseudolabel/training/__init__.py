"""What all trainers share: the loop, the order of batches, checkpoints, and a guard against numbers that are none."""
