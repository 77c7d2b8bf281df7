"""Fit a sequence model, store the run, load it, evaluate it."""
