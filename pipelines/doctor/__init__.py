"""`doctor`: whether the machine, and a run's data, will do."""
