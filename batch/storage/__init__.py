"""Storage: see the modules."""
