"""Options of the stages, a file for each; they import nothing heavy."""
