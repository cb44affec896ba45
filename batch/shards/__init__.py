"""Shards: see the modules."""
