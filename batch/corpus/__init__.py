"""Corpus: see the modules."""
