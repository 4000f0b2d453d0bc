"""Grids of recipes, each pre-trained and probed by one protocol."""
