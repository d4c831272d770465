"""Unpack wheels into trees, and link trees into folders."""
