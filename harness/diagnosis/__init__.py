"""What a run's model knows of its own errors: measured against the real simulator, after training, as no algorithm may."""
