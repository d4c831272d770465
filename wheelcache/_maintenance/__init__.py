"""Prune, verify, remove, doctor."""
