import io
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.lab import cpio

NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
#: What can be: no file is also the folder of another.
TREES = st.dictionaries(PATHS, st.binary(max_size=40), max_size=8).filter(
    lambda tree: not any(other.startswith(path + "/") for path in tree for other in tree)
)


def written(tree: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = cpio.Writer(out)
    for path, data in tree.items():
        writer.file("/" + path, data, 0o755)
    writer.close()
    return out.getvalue()


@given(TREES)
def test_what_is_written_is_read_back_in_order(tree: dict[str, bytes]) -> None:
    entries = list(cpio.read(written(tree)))
    files = [(e.name, e.data) for e in entries if stat.S_ISREG(e.mode)]
    assert files == list(tree.items())
    assert all(stat.S_IMODE(e.mode) == 0o755 for e in entries)


@given(TREES)
def test_every_folder_comes_once_and_before_what_it_holds(tree: dict[str, bytes]) -> None:
    seen: set[str] = set()
    for entry in cpio.read(written(tree)):
        parent = entry.name.rpartition("/")[0]
        assert not parent or parent in seen
        if stat.S_ISDIR(entry.mode):
            assert entry.name not in seen
            seen.add(entry.name)
        else:
            seen.add(entry.name)


@given(TREES, TREES)
def test_archives_end_to_end_read_as_one(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    both = written(first) + bytes(-len(written(first)) % 512) + written(second)
    files = [(e.name, e.data) for e in cpio.read(both) if stat.S_ISREG(e.mode)]
    assert files == [*first.items(), *second.items()]


def test_links_and_devices() -> None:
    out = io.BytesIO()
    writer = cpio.Writer(out)
    writer.link("/bin/sh", "busybox")
    writer.device("/dev/console", 5, 1)
    writer.close()
    by_name = {e.name: e for e in cpio.read(out.getvalue())}
    assert stat.S_ISLNK(by_name["bin/sh"].mode) and by_name["bin/sh"].data == b"busybox"
    assert stat.S_ISCHR(by_name["dev/console"].mode) and by_name["dev/console"].rdev == (5, 1)


@given(st.binary(max_size=300))
def test_anything_else_is_refused_with_its_place(data: bytes) -> None:
    try:
        list(cpio.read(data, "x.cpio"))
    except InputError as error:
        assert error.source == "x.cpio" and error.where.startswith("byte ")
    else:
        assert not data.strip(b"\0")


@given(NAMES, st.binary(min_size=1, max_size=40), st.data())
def test_a_cut_record_is_refused(name: str, content: bytes, data: st.DataObject) -> None:
    whole = written({name: content})
    end = whole.index(content, 110 + len(name.encode())) + len(content)
    with pytest.raises(InputError):
        list(cpio.read(whole[: data.draw(st.integers(1, end - 1))]))
