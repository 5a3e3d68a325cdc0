"""The regression check: whether new run records are worse than a baseline's by more than chance and a margin."""
