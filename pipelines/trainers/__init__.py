"""What trains a model of a run."""
