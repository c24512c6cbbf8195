"""valgrind's lackey, as it writes and as people hold it."""

import shutil
import subprocess

import numpy as np
import pytest

from secondsight.errors import SecondSightError
from support.foreign_traces import LACKEY, F, R, W, run


def test_lackey(tmp_path):
    trace, rows = run(tmp_path, LACKEY)
    assert rows == [
        (1, 0, 0x0401AB70, F, 1),
        (1, 0, 0x1FFF000778, W, 1),
        (2, 0, 0x0401AB73, F, 1),
        (2, 0, 0x04222FFC, R, 1),
        (2, 0, 0x04223000, R, 1),
        (2, 0, 0x0421C7CC, R, 1),
        (2, 0, 0x0421C7CC, W, 1),
        (3, 0, 0x0401AFFF, F, 1),
        (3, 0, 0x0401B000, F, 1),
    ]
    assert trace.provenance.source == "lackey"
    assert "instructions" in trace.provenance.clock.meaning
    assert "page walks" in trace.provenance.unseen


AWK = r"""
function hex(s, i, v) { v = 0; for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1; return v }
/^(I | [LSM]) / {
    split($2, a, ","); low = hex(substr(a[1], length(a[1]) - 2)); pages = 1 + int((low + a[2] - 1) / 4096)
    if ($1 == "I") fetch += pages; if ($1 == "L" || $1 == "M") read += pages; if ($1 == "S" || $1 == "M") write += pages
}
END { print read + 0, write + 0, fetch + 0 }
"""


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk")
@pytest.mark.parametrize("quantum", [0, 50])
def test_lackey_against_an_independent_count(tmp_path, quantum):
    rng = np.random.default_rng(3)
    lines = [LACKEY]
    for op, address, size in zip(
        rng.choice(["I ", " L", " S", " M"], 20_000),
        rng.integers(0, 1 << 38, 20_000).tolist(),
        rng.choice([1, 2, 4, 8, 16, 32, 64, 512], 20_000).tolist(),
        strict=True,
    ):
        lines.append(f"{op} {address:08x},{size}\n".encode())
    _, rows = run(tmp_path, b"".join(lines), quantum=quantum)
    counted = {R: 0, W: 0, F: 0}
    for _, _, _, kind, count in rows:
        counted[kind] += count
    said = subprocess.run(["awk", AWK, tmp_path / "in"], capture_output=True, check=True, text=True).stdout
    assert said.split() == [str(counted[R]), str(counted[W]), str(counted[F])]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # As editors, Windows and course pages leave them.
        (b" L 10,4\r\n", [(1, 0, 16, R, 1)]),
        (b" L 10,4\n S 2000,8\n", [(1, 0, 16, R, 1), (2, 0, 0x2000, W, 1)]),
        (b" L 10,4 \n S 18,4\n\n", [(1, 0, 16, R, 1), (2, 0, 24, W, 1)]),
        (b"L 10,4\nM 18,4\n \n", [(1, 0, 16, R, 1), (2, 0, 24, R, 1), (2, 0, 24, W, 1)]),
        (b"\xef\xbb\xbfI 400,3\r\n\tS\t18,4\r\n\r\n", [(1, 0, 0x400, F, 1), (1, 0, 24, W, 1)]),
        # Two recordings put together end to end.
        (b"==1== one\nI  400,3\n==2== two\nI  500,3\n", [(1, 0, 0x400, F, 1), (2, 0, 0x500, F, 1)]),
    ],
)
def test_lackey_as_people_hold_it(tmp_path, content, expected):
    trace, rows = run(tmp_path, content)
    assert rows == expected
    counted = b"I" not in content
    assert (
        "accesses" in trace.provenance.clock.meaning,
        "instruction fetches" in trace.provenance.unseen,
    ) == (counted, counted)


def test_lackey_that_was_not_asked_for_memory(tmp_path):
    text = b"==1== Lackey, an example Valgrind tool\n==1== Counted 1 call to main()\n"
    with pytest.raises(
        SecondSightError, match=r"no accesses in it: was lackey given --trace-mem=yes\?"
    ) as caught:
        run(tmp_path, text)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
