"""Add wheels to a store, by download or from local files."""
