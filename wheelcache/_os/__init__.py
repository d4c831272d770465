"""What the operating system does, once, without retry."""
