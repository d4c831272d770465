"""Turn the arguments of ``fetch`` (requirements, lock files, URLs, local files) into requests for wheels."""
