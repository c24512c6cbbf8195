"""One process of a scenario: its area, its VM, its pins. Forked from the agent, told over a socket what to do.

The process's own memory never becomes eligible for khugepaged (``libc.refuse_huge_pages``), and only verbs touch the area's pages.

A message is a length (uint32) and msgpack: a request is ``{"do": verb}`` with the scenario's own record,
an answer ``{"errno": name or None, "took": pages or None}``, or ``{"error": text}`` when the agent is at fault.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import traceback
from errno import errorcode as errno_names
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.lab.agent import code, libc
from secondsight.lab.agent.disk import FileCalls
from secondsight.lab.agent.numa import scan_once
from secondsight.lab.agent.pins import Pins, copied, zero_copy
from secondsight.lab.agent.routines import Routines
from secondsight.lab.agent.vm import AreaVm
from secondsight.scenario import pages as pagetext
from secondsight.scenario import verbs as v

__all__ = ["ADDRESS", "Link", "main", "pagemap"]

ADDRESS = "\0secondsight"
"""The agent listens here (an abstract Unix socket)."""

PM_PRESENT = np.uint64(1 << 63)
PM_SWAPPED = np.uint64(1 << 62)


class Link:
    """Whole messages over a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: object) -> None:
        """One message."""
        data = msgspec.msgpack.encode(message)
        self.sock.sendall(struct.pack("<I", len(data)) + data)

    def receive(self) -> Any:
        """The next message; EOFError when the other side is gone."""
        (length,) = struct.unpack("<I", self._exactly(4))
        return msgspec.msgpack.decode(self._exactly(length))

    def _exactly(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            piece = self.sock.recv(n - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out


def pagemap(pid: int | str, blocks: int) -> npt.NDArray[np.uint64]:
    """/proc/PID/pagemap of the area: uint64[blocks * 512] (Documentation/admin-guide/mm/pagemap.rst)."""
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        return np.frombuffer(
            os.pread(file.fileno(), blocks * HPAGE_PMD_NR * 8, libc.AREA // libc.PAGE * 8), np.uint64
        )


def swap_slots(entries: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
    """The swap slots of pagemap's *entries*, in their order, as runs of (first, how many); a first of -1: these are in no slot (lazily
    freed pages that went). Empty where none is in any."""
    swapped = (entries & PM_SWAPPED) != 0
    if not bool(swapped.any()):
        return []
    # Bits 0 to 4 are the swap area's number, of which there is one.
    offsets = ((entries & np.uint64((1 << 55) - 1)) >> np.uint64(5)).astype(np.int64)
    offsets[~swapped] = -1
    step = np.where(swapped[1:] & swapped[:-1], 1, 0)
    return [
        (int(run[0]), len(run)) for run in np.split(offsets, np.flatnonzero(np.diff(offsets) != step) + 1)
    ]


class _ScenarioProcess:
    def __init__(self, space: v.SpaceSpec, uid: int, device: int, link: Link, memory: int) -> None:
        self.blocks, self.device, self.link = space.blocks, device, link
        self.uffd = -1
        self.routines = Routines()
        self.pins = Pins(self.routines)
        self.set_uid(uid)
        length = space.blocks * libc.BLOCK_BYTES
        self.file: FileCalls | None = None
        if space.shared and space.shared.file:
            self.file = FileCalls(self.routines, space.shared.memory, space.shared.block * libc.BLOCK_BYTES)
            self.file.map(libc.AREA, length, shared=space.shared.file == "shared")
        elif space.shared:
            libc.mmap_shared(libc.AREA, length, memory, space.shared.block * libc.BLOCK_BYTES)
        else:
            libc.mmap_fixed(libc.AREA, length, droppable=space.droppable)
        self.vms: dict[int, AreaVm] = {}
        for number, vm in enumerate((space.vm, space.vm2)):
            if vm is not None:
                self.vms[number] = AreaVm(self.routines, space.blocks, number)
                for slot in vm.slots:
                    self.vms[number].add(slot.id, slot.gfn_block, slot.block, slot.blocks)

    def set_uid(self, uid: int) -> None:
        # Neighbours on different processors, the first not on khugepaged's.
        libc.run_on(uid)
        # Bit 31 keeps the stamp of page 0 of the first space from being zero.
        self.stamp = 1 << 31 | uid << 16

    def number(self, text: str) -> list[int]:
        return [int(p) for p in pagetext.parse(text, self.blocks)]

    def ranges(self, text: str) -> list[tuple[int, int]]:
        return [(libc.AREA + p * libc.PAGE, n * libc.PAGE) for p, n in libc.runs(self.number(text))]

    def over(self, text: str, number: int, *arguments: int) -> str | None:
        """The system call *number* on each run; the first errno, after all were done."""
        errors = [self.routines.failed(number, a, n, *arguments) for a, n in self.ranges(text)]
        return next((e for e in errors if e), None)

    def flush_tlb(self) -> None:
        """Unmapping more than 33 populated pages flushes the whole TLB (tlb_single_page_flush_ceiling)."""
        at = libc.SCRATCH + (1 << 24)
        libc.mmap_fixed(at, 64 * libc.PAGE)
        self.routines.touch(code.WRITE, list(range(64)), 1 << 31, at)
        libc.munmap(at, 64 * libc.PAGE)

    def userfault(self, text: str, mode: str) -> str | None:
        """Register each run of pages with the one userfaultfd of this process, and for ``wp`` write-protect them; the first errno."""
        if self.uffd < 0:
            self.uffd = libc.check(libc.lib.syscall(libc.SYS_USERFAULTFD, os.O_CLOEXEC), "userfaultfd")
            fcntl.ioctl(self.uffd, libc.UFFDIO_API, struct.pack("<3Q", 0xAA, 0, 0))
        errors: list[int] = []
        for address, length in self.ranges(text):
            try:
                registered = struct.pack("<4Q", address, length, 2 if mode == "wp" else 1, 0)
                fcntl.ioctl(self.uffd, libc.UFFDIO_REGISTER, registered)
                if mode == "wp":
                    fcntl.ioctl(self.uffd, libc.UFFDIO_WRITEPROTECT, struct.pack("<3Q", address, length, 1))
            except OSError as error:
                errors.append(error.errno or 0)
        return errno_names.get(errors[0], "?") if errors else None

    def there_and_back(self, text: str) -> str | None:
        """mremap(2) of each run of pages out of the area and back; the first errno."""
        how = libc.MREMAP_MAYMOVE | libc.MREMAP_FIXED
        errors: list[str | None] = []
        for address, length in self.ranges(text):
            aside = address - libc.AREA + libc.ASIDE
            wrong = self.routines.failed(libc.SYS_MREMAP, address, length, length, how, aside)
            errors.append(wrong)
            if wrong is None and (
                back := self.routines.failed(libc.SYS_MREMAP, aside, length, length, how, address)
            ):
                raise libc.SysError(5, f"mremap back to {address:#x}: {back}")
        return next((e for e in errors if e), None)

    def the_vm(self, number: int) -> AreaVm:
        if number not in self.vms:
            raise libc.SysError(22, f"this space has no VM {number}")
        return self.vms[number]

    def the_file(self) -> FileCalls:
        if self.file is None:
            raise libc.SysError(22, "this space maps no regular file")
        return self.file

    def do(self, verb: v.Verb) -> dict[str, Any]:
        """Carry out *verb*."""
        errno: str | None = None
        took: str | None = None
        slots: list[tuple[int, int]] = []
        match verb:
            case v.CpuRead():
                errno = self.routines.touch(code.READ, self.number(verb.pages))
            case v.CpuWrite(value=None):
                errno = self.routines.touch(code.WRITE, self.number(verb.pages), self.stamp)
            case v.CpuWrite():
                errno = self.routines.touch(code.FILL, self.number(verb.pages), verb.value or 0)
            case v.GuestRead() | v.GuestWrite():
                stamp = self.stamp if isinstance(verb, v.GuestWrite) else None
                errno = self.the_vm(verb.vm).touch(
                    self.number(verb.pages), slot=verb.slot, view=verb.view, nested=verb.nested, stamp=stamp
                )
            case v.IoCopied():
                errno = copied(self.routines, self.number(verb.pages), verb.write, self.stamp)
            case v.IoZeroCopy():
                errno = zero_copy(self.routines, self.device, self.number(verb.pages), verb.write, self.stamp)
            case v.Pin():
                errno = self.pins.pin(verb.name, self.number(verb.pages), verb.write)
            case v.Unpin():
                self.pins.unpin(verb.name)
            case v.ClearRefs():
                Path("/proc/self/clear_refs").write_text("1")
                self.flush_tlb()
            case v.Madvise():
                errno = self.over(verb.pages, libc.SYS_MADVISE, libc.ADVICE[verb.advice])
                if verb.advice == "collapse":
                    errno = errno or "0"
            case v.Mprotect():
                errno = self.over(verb.pages, libc.SYS_MPROTECT, libc.PROT[verb.prot])
            case v.Mremap():
                errno = self.there_and_back(verb.pages)
            case v.Mlock():
                if verb.onfault:
                    errno = self.over(verb.pages, libc.SYS_MLOCK2, libc.MLOCK_ONFAULT)
                else:
                    errno = self.over(verb.pages, libc.SYS_MLOCK)
            case v.Munlock():
                errno = self.over(verb.pages, libc.SYS_MUNLOCK)
            case v.SwapOut():
                before = pagemap("self", self.blocks) & PM_PRESENT
                errno = self.over(verb.pages, libc.SYS_MADVISE, libc.ADVICE["pageout"])
                entries = pagemap("self", self.blocks)
                gone = np.flatnonzero((before & ~entries) != 0)
                took = pagetext.format(gone)
                slots = swap_slots(entries[gone])
                self.flush_tlb()
            case v.NumaScan():
                scan_once(self.routines)
            case v.Uffd():
                errno = self.userfault(verb.pages, verb.mode)
            case v.SplitPmd():
                # The VMA's edge inside the huge page splits the PMD (vma_adjust_trans_huge) and changes no entry's bits.
                for block in sorted({p // HPAGE_PMD_NR for p in self.number(verb.pages)}):
                    at = libc.AREA + block * libc.BLOCK_BYTES
                    errno = (
                        libc.madvise(at, libc.PAGE, "dontfork")
                        or libc.madvise(at, libc.PAGE, "dofork")
                        or errno
                    )
            case v.FileRead():
                errno = self.the_file().read(self.number(verb.pages))
            case v.FileWrite():
                errno = self.the_file().write(self.number(verb.pages))
            case v.FileDrop():
                errno = self.the_file().drop(self.number(verb.pages))
            case v.FileSync():
                errno = self.the_file().sync()
            case v.SlotAdd():
                self.the_vm(verb.vm).add(verb.slot.id, verb.slot.gfn_block, verb.slot.block, verb.slot.blocks)
            case v.SlotDelete():
                self.the_vm(verb.vm).delete(verb.id)
            case _:
                raise libc.SysError(22, f"{type(verb).__name__} is not a process's verb")
        return {"errno": errno, "took": took, "slots": slots}

    def fork(self, child: str, uid: int) -> dict[str, Any]:
        """fork(2): the child lets go of the VM and the pins and announces itself to the agent."""
        pid = os.fork()
        if pid:
            return {"pid": pid}
        self.pins.close_inherited()
        for vm in self.vms.values():
            vm.close_inherited()
        self.vms.clear()
        self.link.sock.close()
        self.set_uid(uid)
        self.link = announce(child)
        return {}


def announce(name: str) -> Link:
    """Connect to the agent and say who this is."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(ADDRESS)
    link = Link(sock)
    link.send({"name": name, "pid": os.getpid()})
    return link


def main(space: v.SpaceSpec, uid: int, device: int, memory: int = -1) -> None:
    """A space's process, from its start to its end; does not return. *memory*: the memfd that it maps, or -1."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    libc.disable_thp(False)
    # Before everyone else on the only processor, for as long as it does not wait: nobody's pages come between this one's.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        _serve(space, uid, device, memory)
    except EOFError:
        pass
    except BaseException:
        # The console is where the host finds it.
        traceback.print_exc()
    finally:
        os._exit(0)


def _serve(space: v.SpaceSpec, uid: int, device: int, memory: int) -> None:
    link = announce(space.name)
    try:
        worker = _ScenarioProcess(space, uid, device, link, memory)
    except OSError as error:
        link.send({"error": f"setting up space {space.name}: {error}"})
        return
    link.send({})
    decode = msgspec.msgpack.Decoder(v.Verb)
    while True:
        request = worker.link.receive()
        try:
            if request["do"] == "exit":
                worker.pins.release()
                return
            if request["do"] == "fork":
                answer = worker.fork(request["child"], request["uid"])
                if not answer:  # the child has announced itself; its first answer is the agent's to ask for
                    continue
            elif request["do"] == "flush":
                worker.flush_tlb()
                answer = {}
            else:
                answer = worker.do(decode.decode(request["verb"]))
        except (OSError, KeyError, ValueError, msgspec.ValidationError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        worker.link.send(answer)
