"""The rows of every method: one file for each, `ROWS` maps a data set's name to its values and their sources."""
