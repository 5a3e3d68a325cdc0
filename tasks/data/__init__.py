"""Offline datasets: read, checked, fetched, rolled out from bundled policies, cached."""

from importlib import resources

BUNDLED = resources.files(__package__) / "bundled"  # policies and small datasets that come with the package
