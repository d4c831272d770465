"""Find out which wheels the user requests: by requirement, lock file, URL or local file."""
