"""A TLB as plain lists in order of use: what secondsight.replay.tlb must be."""

from secondsight.replay.tlb import CLEAN, DIRTY, MISS


class Lists:
    """The same as plain lists in order of use, latest last."""

    def __init__(self, config):
        self.config = config
        self.levels = {"l1_small": {}, "l1_huge": {}, "l2": {}}

    def set(self, name, number):
        entries, ways = getattr(self.config, name), getattr(self.config, f"{name}_ways")
        return self.levels[name].setdefault(number % (entries // ways), []), ways

    def put(self, name, number, key, dirty):
        held, ways = self.set(name, number)
        held[:] = [e for e in held if e[0] != key][-(ways - 1) :] if ways > 1 else []
        held.append((key, dirty))

    def use(self, page, huge, write):
        name, number = ("l1_huge", page >> 9) if huge else ("l1_small", page)
        key = (number, huge)
        for level in (name, "l2"):
            held, _ = self.set(level, number)
            for entry in held:
                if entry[0] == key:
                    dirty = entry[1] or write
                    self.put(level, number, key, dirty)
                    if level == "l2":
                        self.put(name, number, key, dirty)
                    elif write and not entry[1]:
                        l2, _ = self.set("l2", number)
                        l2[:] = [(k, True) if k == key else (k, d) for k, d in l2]
                    return DIRTY if entry[1] else CLEAN
        self.put("l2", number, key, write)
        self.put(name, number, key, write)
        return MISS

    def flush(self, rows):
        for sets in self.levels.values():
            for held in sets.values():
                held[:] = [e for e in held if (e[0][0] if e[0][1] else e[0][0] >> 9) not in rows]

    def drop(self, page, huge):
        """The entry of *page*, of its block where *huge*, is flushed."""
        key = (page >> 9 if huge else page, huge)
        for sets in self.levels.values():
            for held in sets.values():
                held[:] = [e for e in held if e[0] != key]
