"""drgn types made from BTF: structures, unions, bit fields, enumerators, pointers to what is only named, and blobs that are none."""

import struct

import pytest

from secondsight.errors import InputError, MissingDependency

pytest.importorskip("drgn")

import drgn

from secondsight.live.read import btf, btftypes
from secondsight.live.read.btf import Btf
from secondsight.live.read.btftypes import BtfTypes
from support.btf_blob import Blob, sample


def test_drgn_types():
    blob, _ = sample()
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    types = BtfTypes(program, Btf(blob.done()))
    program.register_type_finder("btf", types.find_type, enable_index=0)
    program.register_object_finder("btf", types.find_constant, enable_index=0)
    page = program.type("struct page")
    assert (page.size, drgn.offsetof(page, "private"), drgn.offsetof(page, "_refcount")) == (32, 8, 16)
    assert program.type("word").type.size == 8
    assert program.constant("PG_locked").value_() == 3
    bits = program.type("struct bits")
    assert [m.bit_field_size for m in bits.members] == [3, 61]
    with pytest.raises(LookupError):
        program.type("struct nothing")


def program_of(blob):
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    btftypes.attach(program, "test", Btf(blob.done()))
    return program


def test_a_structure_that_is_only_named_is_the_one_that_is_there():
    blob = Blob()
    word = blob.add("unsigned long", btf.INT, 8, extra=struct.pack("<I", 64))
    named = blob.add("node", btf.FWD, 0)
    union = blob.add("both", btf.FWD, 0, flag=1)
    to_node, to_union = blob.add("", btf.PTR, named), blob.add("", btf.PTR, union)
    blob.add("node", btf.STRUCT, 16, [("next", to_node, 0), ("value", word, 64)])
    blob.add("holder", btf.STRUCT, 8, [("both", to_union, 0)])
    program = program_of(blob)
    node = program.type("struct node")
    assert (
        node.members[0].type.type.tag == "node"
        and node.members[0].type.type.size == 16
        and drgn.offsetof(node, "value") == 8
    )
    # Nobody says what is in it: it has a name and no members.
    inner = program.type("struct holder").members[0].type.type
    assert inner.kind == drgn.TypeKind.UNION and not inner.is_complete()


def test_integers_arrays_and_qualifiers():
    blob = Blob()
    byte = blob.add("unsigned char", btf.INT, 1, extra=struct.pack("<I", 8))
    yes = blob.add("_Bool", btf.INT, 1, extra=struct.pack("<I", 4 << 24 | 8))
    signed = blob.add("int", btf.INT, 4, extra=struct.pack("<I", 1 << 24 | 32))
    four = blob.add("", btf.ARRAY, 0, extra=struct.pack("<III", signed, signed, 4))
    open_ended = blob.add("", btf.ARRAY, 0, extra=struct.pack("<III", byte, signed, 0))
    constant = blob.add("", btf.CONST, blob.add("", btf.VOLATILE, signed))
    blob.add(
        "all",
        btf.STRUCT,
        24,
        [("yes", yes, 0), ("four", four, 32), ("one", constant, 160), ("rest", open_ended, 192)],
    )
    every = {member.name: member.type for member in program_of(blob).type("struct all").members}
    assert (
        every["yes"].kind == drgn.TypeKind.BOOL and every["four"].length == 4 and every["four"].type.is_signed
    )
    assert every["rest"].length is None and every["rest"].type.size == 1 and not every["rest"].type.is_signed
    assert every["one"].qualifiers == drgn.Qualifiers.CONST | drgn.Qualifiers.VOLATILE


def test_a_type_of_another_kind_is_another_type():
    blob, _ = sample()
    program = program_of(blob)
    for name in ("union page", "enum page", "struct pageflags", "page"):
        with pytest.raises(LookupError):
            program.type(name)
    with pytest.raises(LookupError):
        program.constant("PG_none")
    assert program.constant("PG_below").value_() == -1


def test_a_kind_that_this_reader_does_not_know_is_refused_by_number():
    blob = Blob()
    strange = blob.add("strange", 30, 0)
    blob.add("holder", btf.STRUCT, 8, [("it", strange, 0)])
    member = program_of(blob).type("struct holder").members[0]
    with pytest.raises(InputError, match=f"type {strange}: unknown kind 30"):
        _ = member.type


def test_a_modules_types_are_asked_after_the_kernels(tmp_path):
    blob, page = sample()
    base = Btf(blob.done())
    module = Blob(strings=b"\0", first=base.end, base=base.end_string)
    module.add("kvm", btf.STRUCT, 8, [("page", page, 0)])
    (tmp_path / "vmlinux").write_bytes(blob.done())
    (tmp_path / "kvm").write_bytes(module.done())
    types = btftypes.load(tmp_path, ("kvm", "not_loaded"))
    assert list(types) == ["vmlinux", "kvm"]
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    for name, each in types.items():
        btftypes.attach(program, name, each)
    assert program.type("struct kvm").members[0].type.size == program.type("struct page").size == 32


def test_a_kernel_without_types_says_so(tmp_path):
    with pytest.raises(MissingDependency):
        btftypes.load(tmp_path)
    (tmp_path / "vmlinux").write_bytes(b"no types at all, but long enough")
    with pytest.raises(InputError):
        btftypes.load(tmp_path)
