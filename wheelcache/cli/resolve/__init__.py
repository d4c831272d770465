"""Find out which wheels are requested: by requirement, lock file, URL or local file."""
