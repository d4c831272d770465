"""Whether other users can write to folders. :mod:`..system` chooses between POSIX and Windows."""
