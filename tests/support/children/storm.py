"""One of many processes that fetch the same wheels in random orders, until killed or finished.

python storm.py CACHE SEED URL#sha256=... ...
"""

import random
import sys

from wheelcache import Cache

folder, seed, *urls = sys.argv[1:]
random.Random(seed).shuffle(urls)
with Cache(folder) as cache:
    for url in urls:
        cache.fetch(url)
        print(url, flush=True)
