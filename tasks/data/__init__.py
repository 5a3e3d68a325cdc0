"""Offline datasets: read, checked, fetched, rolled out from bundled policies, cached."""
