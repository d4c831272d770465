"""HTTP scenes: each runs by every route, that is with every HTTP library, synchronously and asynchronously."""
