"""The calls of the operating system. Each makes one attempt and raises the system's own error."""
