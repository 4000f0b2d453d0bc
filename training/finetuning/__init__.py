"""Labelled recordings and a checkpoint to a classifier, over all folds."""
