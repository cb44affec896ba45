"""Tuning: the grid, its trials, and what their figures say. Knows neither Ray nor a command line."""
