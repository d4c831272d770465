"""The HTTP client of a cache whose caller passes none."""
