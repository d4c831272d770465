"""Prune, clear and verify a cache, remove entries, collect statistics, and run doctor."""
