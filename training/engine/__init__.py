"""The loop that trains any objective. Knows no audio and no model class."""
