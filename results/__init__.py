"""Results as data: the paper's numbers (`paper/`) and the run records of this project (`published/`)."""
