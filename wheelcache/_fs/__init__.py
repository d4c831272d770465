"""Robust file operations on top of the operating system's."""
