"""Protocols, scores and probes: what features are worth."""
