"""The HTTP libraries that a client may belong to."""
