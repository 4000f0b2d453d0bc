"""Everything that makes or reads training examples."""
