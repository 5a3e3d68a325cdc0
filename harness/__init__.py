"""Who runs the algorithms, and what came of it."""
