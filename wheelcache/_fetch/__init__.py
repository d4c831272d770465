"""Add wheels to a store by downloading them or copying local files."""
