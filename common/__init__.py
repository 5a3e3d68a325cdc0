"""What every room needs: errors, whole-file writing, random streams, plug-ins, typed settings."""
