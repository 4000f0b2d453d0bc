"""Macro-averaged average precision."""
