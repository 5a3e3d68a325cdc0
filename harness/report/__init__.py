"""What is shown of run records: groups of seeds, statistics over them, tables and their formats, comparisons, plots."""
