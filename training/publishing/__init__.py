"""Folders, cards and pages for others to read."""
