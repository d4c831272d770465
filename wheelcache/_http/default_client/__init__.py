"""Our own HTTP client, for a cache whose caller passes no client."""
