"""What travels to the Hub with every checkpoint: configuration, front end, feature extractor, models."""
