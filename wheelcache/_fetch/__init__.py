"""Getting wheels in."""
