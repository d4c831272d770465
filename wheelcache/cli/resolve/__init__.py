"""Resolve the arguments of ``fetch`` (requirements, lock files, URLs, local files) to requests for wheels."""
