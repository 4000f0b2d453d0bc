"""The only way from labelled audio to arrays."""
