"""A VM's memory as a total of its own: which mappings it is, how huge, and who keeps the rest small."""

import dataclasses

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.cli import main
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from secondsight.live.read.vma import Vma, clip
from support.snapshots import BLOCK, KNOWN, START, columns, snapshot, with_vm

HUGE = bits.PRESENT | bits.PSE | bits.RW | bits.USER | bits.ACCESSED


def half_huge(slots=True):
    memory = columns(8)
    memory.pmd[:4], memory.pte[:4] = HUGE, 0
    if slots:
        memory = with_vm(memory, np.zeros((8, 512), bool))
        memory.spte_level[:] = [2, 2, 1, 2, 1, 1, 1, 0]
    return memory


def test_by_memslots():
    ram = explain(snapshot(half_huge())).guest_ram
    assert (ram.told_by, ram.blocks, ram.mappings, ram.coverage) == ("KVM's memslots", 8, 1, 0.5)
    assert ram.levels == {"4kB": 4 * BLOCK, "2048kB": 3 * BLOCK} and ram.pinned == 0
    assert ram.resident == 8 * BLOCK and ram.huge == 4 * BLOCK
    assert ram.small_by["host: lack_referenced_page"] == 4
    assert [count for why, count in ram.small_by.items() if why.startswith("KVM: huge on the host")] == [1]


def without_slots(name, flags=(), vms=1):
    memory = dataclasses.replace(half_huge(slots=False), secondary=())
    memory.gfn[:] = -1
    taken = snapshot(memory, flags=("hg", *flags))
    other = Vma(
        START - 64 * BLOCK, START - 61 * BLOCK, "rw-p", 0, "00:00", 0, "", frozenset({"rd"}), {}, None
    )
    header = msgspec.structs.replace(
        taken.header, name=name, mappings=(other, *taken.header.mappings),
        surroundings=msgspec.structs.replace(KNOWN, vms=vms),
    )  # fmt: skip
    return dataclasses.replace(taken, header=header)


@pytest.mark.parametrize(
    ("name", "flags", "vms", "told_by"),
    [
        ("qemu-system-x86", ("dc",), 0, "QEMU's marks (MADV_DONTFORK)"),
        ("firecracker", (), 1, "the largest mappings of a process that runs a VM"),
        ("my-vmm", (), 2, "the largest mappings of a process that runs a VM"),
        ("redis-server", (), 0, None),
    ],
)
def test_by_mappings(name, flags, vms, told_by):
    ram = explain(without_slots(name, flags, vms)).guest_ram
    assert (ram and ram.told_by) == told_by
    if ram:
        assert (ram.mappings, ram.blocks, ram.coverage, ram.levels) == (1, 8, 0.5, {})


@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize(("blocks", "counted"), [(1, False), (2, True)])
def test_vga_memory_is_told_beside_the_ram(slots, blocks, counted, tmp_path, capsys):
    """QEMU marks VGA memory and ROMs as it does RAM: a small mapping beside one four times as large."""
    memory = dataclasses.replace(half_huge(slots), secondary=()) if not slots else half_huge()
    if not slots:
        memory.gfn[:] = -1
    taken = snapshot(memory, flags=("hg", "dc"))
    ram, edge = taken.header.mappings[0], START + (8 - blocks) * BLOCK
    header = msgspec.structs.replace(
        taken.header, name="qemu-system-x86",
        mappings=(msgspec.structs.replace(ram, end=edge), msgspec.structs.replace(ram, start=edge)),
    )  # fmt: skip
    taken = dataclasses.replace(taken, header=header)
    answer = explain(taken).guest_ram
    size = 8 if counted else 8 - blocks
    assert (answer.blocks, answer.size, answer.resident) == (size, size * BLOCK, size * BLOCK)
    assert answer.coverage == 4 / size and answer.mappings == 1 + counted
    assert (answer.beside, answer.beside_mappings) == ((0, 0) if counted else (blocks * BLOCK, 1))
    capture.save(taken, tmp_path / "s.npz")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "s.npz")])
    assert ("not counted: 2.0 MiB in 1 small mapping" in capsys.readouterr().out) != counted


@pytest.mark.parametrize("slots", [True, False])
def test_what_is_resident_is_told_to_the_page_and_coverage_of_whole_blocks(slots, tmp_path, capsys):
    """A mapping that begins and ends between two blocks: 8 of them, and 1 MiB before and 512 kB behind, all resident."""
    taken = snapshot(half_huge(slots), flags=("hg", "dc"))
    (ram,) = taken.header.mappings
    before, behind = BLOCK // 2, BLOCK // 4
    kb = {**ram.kb, "Rss": (8 * BLOCK + before + behind) >> 10}
    ram = msgspec.structs.replace(ram, start=ram.start - before, end=ram.end + behind, kb=kb)
    taken = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, mappings=(ram,)))
    taken = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, name="qemu-system-x86"))
    answer = explain(taken)
    assert answer.guest_ram.size == answer.guest_ram.resident == 8 * BLOCK + before + behind
    assert answer.mappings[0].resident == answer.guest_ram.resident and not answer.guest_ram.blocks_only
    assert answer.guest_ram.coverage == 0.5
    capture.save(taken, tmp_path / "s.npz")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "s.npz")])
    out = capsys.readouterr().out
    assert "guest RAM: 17.5 MiB in 1 mapping" in out
    assert "17.5 MiB resident; 50.0 % of its whole 2 MiB blocks is huge" in out
    # Without smaps, as of a dump, or of a part of the mapping: what its whole blocks hold, and it says so.
    for other in (
        msgspec.structs.replace(ram, kb={}),
        clip([ram], (ram.start + 4096, ram.end))[0],
    ):
        blind = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, mappings=(other,)))
        capture.save(blind, tmp_path / "s.npz")
        with pytest.raises(SystemExit):
            main(["explain", str(tmp_path / "s.npz")])
        assert "16.0 MiB resident in whole 2 MiB blocks; 50.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "code"), [("50%", 0), ("0.5", 0), ("51%", 1), ("95%", 1), ("101%", 2), ("most", 2)]
)
def test_fail_under(share, code, tmp_path, capsys):
    path = tmp_path / "s.npz"
    capture.save(snapshot(half_huge()), path)
    with pytest.raises(SystemExit) as left:
        main(["explain", str(path), "--fail-under", share])
    captured = capsys.readouterr()
    assert (left.value.code or 0) == code, captured.err
    if code < 2:
        assert (
            "guest RAM: 16.0 MiB in 1 mapping (anonymous; known by KVM's memslots), 16.0 MiB resident; 50.0 %"
            in captured.out
        )
    assert captured.err.count("\n") == (code != 0)


def test_without_a_vm_it_asks_about_eligible_memory(tmp_path, capsys):
    path = tmp_path / "s.npz"
    capture.save(without_slots("redis-server", vms=0), path)
    with pytest.raises(SystemExit) as left:
        main(["explain", str(path), "--json", "--fail-under", "60%"])
    assert (
        left.value.code == 1 and "50.0 % of the resident eligible memory is huge" in capsys.readouterr().err
    )
