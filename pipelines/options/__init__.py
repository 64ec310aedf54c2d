"""What each command can be told: configs alone, so that `--help` imports nothing that works on images."""
