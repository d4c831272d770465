"""Wheels to trees, trees out to folders."""
