"""BTF written by hand: enough of it to describe structures as a kernel's build does."""

import struct

from secondsight.live.read import btf


class Blob:
    """Writes BTF."""

    def __init__(self, strings=b"\0", first=1, base=0):
        self.strings, self.types, self.base, self.next = strings, b"", base, first
        self.at: dict[str, int] = {}

    def text(self, name):
        # Each string once, as the kernel's build has it.
        if name and name not in self.at:
            self.at[name] = self.base + len(self.strings)
            self.strings += name.encode() + b"\0"
        return self.at[name] if name else 0

    def add(self, name, kind, size=0, members=(), flag=0, extra=b""):
        rows = b"".join(struct.pack("<III", self.text(n), t, o) for n, t, o in members)
        self.types += (
            struct.pack("<III", self.text(name), flag << 31 | kind << 24 | len(members), size) + extra + rows
        )
        self.next += 1
        return self.next - 1

    def done(self):
        head = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return head + self.types + self.strings


def sample():
    blob = Blob()
    number = blob.add("unsigned long", btf.INT, 8, extra=struct.pack("<I", 64))
    signed = blob.add("int", btf.INT, 4, extra=struct.pack("<I", 1 << 24 | 32))
    pointer = blob.add("", btf.PTR, 4)
    inner = blob.add("", btf.UNION, 8, [("mapping", pointer, 0), ("private", number, 0)])
    page = blob.add(
        "page", btf.STRUCT, 32, [("flags", number, 0), ("", inner, 64), ("_refcount", signed, 128)]
    )
    blob.add("word", btf.TYPEDEF, number)
    names = [blob.text(n) for n in ("PG_locked", "PG_below")]
    blob.types += struct.pack("<III", blob.text("pageflags"), 1 << 31 | btf.ENUM << 24 | 2, 4) + struct.pack(
        "<IiIi", names[0], 3, names[1], -1
    )
    blob.next += 1
    blob.add("bits", btf.STRUCT, 8, [("low", number, 3 << 24), ("high", number, 61 << 24 | 3)], flag=1)
    return blob, page
