"""The reference TLB in plain Python."""

from __future__ import annotations


class PlainTlb:
    """Two levels, least recently used, lists alone; sizes of ``TlbConfig()``."""

    def __init__(self, first_sets: int) -> None:
        self.one = [[] for _ in range(first_sets)]
        self.two = [[] for _ in range(128)]

    def misses(self, number: int) -> bool:
        one, two = self.one[number % len(self.one)], self.two[number % 128]
        hit = number in one
        if hit:
            one.remove(number)
        one.insert(0, number)
        del one[4:]
        if hit:
            return False
        cached = number in two
        if cached:
            two.remove(number)
        two.insert(0, number)
        del two[12:]
        return not cached
