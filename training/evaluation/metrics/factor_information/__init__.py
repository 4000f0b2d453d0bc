"""What features know of a factor."""
