"""The operating system: each call is made once, without retry, and raises the system's own error."""
