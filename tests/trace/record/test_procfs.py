"""What procfs shows: smaps read or refused, and whether the kernel keeps soft-dirty bits."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.trace.record.procfs import SmapsEntry, parse_smaps, soft_dirty_works

SMAPS = """00400000-00402000 r-xp 00000000 08:01 12 /bin/x
Size:                  8 kB
Rss:                   8 kB
Referenced:            4 kB
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Rss:                   0 kB
Referenced:            0 kB
VmFlags: rd wr mr mw me ac
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
Rss:                   0 kB
"""


def test_smaps():
    assert parse_smaps(SMAPS) == [
        SmapsEntry(0x400000, 0x402000, "r-xp", 8, 4),
        SmapsEntry(0x7F0000000000, 0x7F0000200000, "rw-p", 0, 0),
    ]
    with pytest.raises(InputError, match="line 3"):
        parse_smaps(SMAPS.replace("8 kB\nRef", "x kB\nRef"))


@given(st.text(alphabet="0123456789abcdef- rwxpRs:kBefnc\n", max_size=200))
def test_no_text_brings_more_than_an_input_error(text):
    try:
        parse_smaps(text)
    except InputError as error:
        assert error.where.startswith("line ")


def test_soft_dirty_is_asked_of_the_kernel():
    """By a way of its own: in smaps a mapping that was never cleared is "sd" where the kernel keeps such bits."""
    flags = re.findall(r"^VmFlags:(.*)$", Path("/proc/self/smaps").read_text(), re.M)
    assert soft_dirty_works() == any("sd" in words.split() for words in flags)
