"""What is asked of a finished run or a trained model."""
