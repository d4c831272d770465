"""One of many processes that want the same wheels, in an order of its own, until it is killed or has all.

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
