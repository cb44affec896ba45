"""Fitting: options, one engine a backend, the loop that both share, and its state on disk."""
