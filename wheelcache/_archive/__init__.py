"""Read wheels strictly."""
