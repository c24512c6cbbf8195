"""A service of 64 threads: each packs and unpacks small documents. Every thread has a stack of its own and glibc gives most an arena of
their own, of which a few pages are used: what a huge page there takes is bloat."""

import json
import random
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

THREADS, REQUESTS = 64, 700
ready = threading.Barrier(THREADS)


def begin() -> None:
    """All threads run before the first request comes."""
    ready.wait()


def request(seed: int) -> int:
    """Packs and unpacks a document of 40 items."""
    numbers = random.Random(seed)
    document = [{"id": i, "name": f"item {numbers.randrange(10**6)}"} for i in range(40)]
    packed = zlib.compress(json.dumps(document).encode(), 6)
    return len(json.loads(zlib.decompress(packed)))


with ThreadPoolExecutor(THREADS, initializer=begin) as pool:
    for _ in range(THREADS):
        pool.submit(request, 0)
    print(sum(pool.map(request, range(REQUESTS))))
