"""Send requests with the HTTP library that a client belongs to."""
