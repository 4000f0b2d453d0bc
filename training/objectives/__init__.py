"""What can be pre-trained: a file per family, and the sources of their examples."""
