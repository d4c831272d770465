"""Decide how much the digests in the files of a cache folder are worth."""
