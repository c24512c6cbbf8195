"""BTF: types found and made right; torn blobs refused by name."""

import os
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.read import btf
from secondsight.live.read.btf import Btf
from secondsight.live.read.probe import probe
from secondsight.live.read.symbols import BTF_FOLDER
from support.btf_blob import Blob, sample


def test_find_and_enumerators():
    blob, page = sample()
    read = Btf(blob.done())
    assert read.find("page", frozenset({btf.STRUCT})) == page
    assert read.find("page", frozenset({btf.UNION})) is None
    assert read.find("pag", frozenset({btf.STRUCT})) is None, "a prefix is another name"
    assert read.find_enumerator("PG_locked")[1] == 3
    assert read.find_enumerator("PG_below")[1] == -1
    assert read.find_enumerator("PG_none") is None


def test_a_module_goes_on_where_vmlinux_ends():
    blob, page = sample()
    base = Btf(blob.done())
    module = Blob(strings=b"\0", first=base.end, base=base.end_string)
    holder = module.add("holder", btf.STRUCT, 8, [("page", page, 0)])
    # Named by a string of vmlinux's.
    at = blob.strings.index(b"\0word\0") + 1
    module.types += struct.pack("<III", at, btf.STRUCT << 24, 4)
    split = Btf(module.done(), base)
    assert split.find("holder", frozenset({btf.STRUCT})) == holder
    assert split.find("word", frozenset({btf.STRUCT})) == holder + 1
    assert split.find("page", frozenset({btf.STRUCT})) == page
    assert split.text(split.record(page).name) == "page"
    assert split.find_enumerator("PG_locked")[1] == 3


def test_functions_are_found_without_the_index():
    blob, page = sample()
    blob.add("page_add", btf.FUNC, page)
    blob.types += struct.pack("<III", blob.text("page_put"), btf.FUNC << 24 | 1, page)  # its linkage: global
    base = btf.Blob(blob.done())
    module = Blob(strings=b"\0", first=Btf(blob.done()).end, base=base.end_string)
    module.add("mine", btf.FUNC, page)
    at = blob.strings.index(b"\0word\0") + 1
    module.types += struct.pack("<III", at, btf.FUNC << 24, page)
    split, indexed = btf.Blob(module.done(), base), Btf(module.done(), Btf(blob.done()))
    for name in (
        "page_add",
        "page_put",
        "mine",
        "word",
        "page",
        "flags",
        "PG_locked",
        "bits",
        "nothing",
        "page_",
        "add",
    ):
        assert split.has_function(name) == (indexed.find(name, frozenset({btf.FUNC})) is not None), name
    assert base.has_function("page_put") and not base.has_function("word") and split.has_function("word")


def test_the_running_kernels_functions_and_types():
    path = BTF_FOLDER / "vmlinux"
    if not os.access(path, os.R_OK):
        pytest.skip("this kernel has no BTF")
    read, names = Btf.load(path), btf.Blob.load(path)
    # Records follow one another without a gap, to the end.
    assert read.starts[0] == 0 and (np.diff(read.starts) >= 3).all()
    luck = random.Random(1)
    for number in luck.sample(range(1, read.end), 60):
        name = read.text(read.record(number).name)
        if name:
            assert names.has_function(name) == (read.find(name, frozenset({btf.FUNC})) is not None), name


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"\xeb\x9f" + bytes(30), Blob().done()[:20]])
def test_refused(data):
    with pytest.raises(InputError):
        Btf(data)


@pytest.mark.parametrize("words", [1, 2])
def test_a_last_record_torn_in_its_head_is_refused(words):
    blob = Blob()
    blob.add("", btf.PTR, 0)
    blob.types += bytes(4 * words)
    with pytest.raises(InputError, match="type 2: torn"):
        Btf(blob.done())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_refused_or_survived(data):
    whole = bytearray(sample()[0].done())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    for text in (bytes(whole), bytes(cut)):
        try:
            read = Btf(text)
            for number in range(read.first, read.end):
                read.text(read.record(number).name)
            read.find("page", frozenset({btf.STRUCT}))
        except InputError:
            continue


def test_what_is_left_out_of_a_short_probe_leaves_the_same_points_open():
    whole, short = probe(), probe(kallsyms=None, types=False)
    for has_vm in (False, True):
        assert choose_profiles(whole, has_vm).open_points == choose_profiles(short, has_vm).open_points
    assert (whole.zap_transfers, whole.trace_fields, whole.mglru) == (
        short.zap_transfers, short.trace_fields, short.mglru,
    )  # fmt: skip
