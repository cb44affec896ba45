"""Nightly scoring: buckets and a bundle in, scores and a ledger of what was scored with what out. Knows no Ray."""
