"""Faces: see the modules."""
