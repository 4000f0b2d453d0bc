"""A run's folder on a disk: its recipe, its claim, checkpoints that are verified, metrics, where results come from."""
