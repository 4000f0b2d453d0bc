"""Images that no camera took: sets of synthetic patterns, each image a function of (set, seed, index)."""
