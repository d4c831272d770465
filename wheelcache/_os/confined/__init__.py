"""File layers of one cache, which do not follow links below its folder."""
