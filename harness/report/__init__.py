"""What is shown of run records: statistics, tables and their formats, plots."""
