"""Offline datasets: read and checked, downloaded, rolled out from bundled policies, cached."""
