"""Reports: see the modules."""
