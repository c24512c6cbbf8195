"""One batch: a scenario (usually many, merged) from its first step to its last."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from errno import errorcode as errno_names
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.lab.agent import knobs, libc, worker
from secondsight.lab.agent.ageing import age
from secondsight.lab.agent.disk import Disk
from secondsight.lab.agent.events import TracedSpace, TraceError, attribute
from secondsight.lab.agent.file_events import attribute_files
from secondsight.lab.agent.passes import Tracer, finish_pass, one_pass, rest, start_keeper, wake_up
from secondsight.lab.agent.state import Eyes, ksm_pages
from secondsight.scenario import pages as pagetext
from secondsight.scenario import verbs as v
from secondsight.scenario.results import BlockPass, FilePass, PageState, StepAnswer

__all__ = ["Boot", "ScenarioRunner"]

_KSM_SCANS = 7
#: seconds without a page looked at
_KSM_ASLEEP = 5


class Boot:
    """What lives as long as the boot: the listener, the trace, the keeper, the device for direct I/O."""

    def __init__(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(worker.ADDRESS)
        self.listener.listen(16)
        self.listener.settimeout(30)
        self.device = os.open("/dev/ram1", os.O_RDWR | os.O_DIRECT)
        _fill_page_cache()
        libc.run_on(0)
        libc.disable_thp(True)
        libc.refuse_huge_pages()
        knobs.thp_enabled("madvise")
        knobs.khugepaged("scan_sleep_millisecs", knobs.FOREVER)
        self.keeper = start_keeper()
        self.tracer = Tracer()
        self._eyes: Eyes | None = None
        self._disk: Disk | None = None

    def disk(self) -> Disk:
        """The file system for regular files; made when first asked for."""
        if self._disk is None:
            self._disk = Disk()
        return self._disk

    @property
    def eyes(self) -> Eyes:
        """Kernel memory; attached when first asked for."""
        if self._eyes is None:
            self._eyes = Eyes()
        return self._eyes

    def provenance(self) -> dict[str, str]:
        """Which kernel this is."""
        facts = {"kernel": os.uname().release, "build": os.uname().version, "cpus": str(os.cpu_count())}
        lru_gen = Path("/sys/kernel/mm/lru_gen/enabled")
        facts["lru_gen at boot"] = knobs.read(lru_gen) if lru_gen.exists() else "absent"
        return facts


def _fill_page_cache() -> None:
    """A 24th of memory as inactive page cache, from the swap device.

    A page swapped in again starts active if it was away for less than the size of the active lists and the page cache
    (workingset_refault). Without a page cache that would depend on how much the other scenarios of a batch swap.
    """
    swap = os.open("/dev/ram0", os.O_RDONLY)
    buffer = bytearray(1 << 20)
    for i in range(os.sysconf("SC_PHYS_PAGES") * libc.PAGE // 24 // len(buffer)):
        os.preadv(swap, [buffer], i * len(buffer))
    os.close(swap)


def _file(space: v.SpaceSpec) -> str:
    """What the kernel calls the file behind the area of *space* (d_iname); empty: it is private."""
    if space.shared is None:
        return ""
    if space.shared.file:
        return space.shared.memory
    return f"memfd:{space.shared.memory}" if space.shared.memory else "dev/zero"


class _SpaceLink:
    """The agent's end of one process."""

    def __init__(self, name: str, pid: int, link: worker.Link, blocks: int, file: str) -> None:
        self.name, self.pid, self.link, self.blocks, self.file = name, pid, link, blocks, file
        self.mm = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self.link.send(request)
            answer: dict[str, Any] = self.link.receive()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise libc.SysError(3, f"the process of space {self.name} died") from None
        if "error" in answer:
            raise libc.SysError(5, f"space {self.name}: {answer['error']}")
        return answer

    def end(self) -> None:
        """Exit, and wait until nothing is left of it: the zombie appears after its memory and files are gone."""
        handle = os.pidfd_open(self.pid)
        try:
            self.link.send({"do": "exit"})
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
        select.select([handle], [], [], 30)
        os.close(handle)
        self.link.sock.close()


class ScenarioRunner:
    """Runs a scenario. *observe*: for each ``observe`` step, the spaces it is about; *states*: also around each pass."""

    def __init__(self, host: Boot, scenario: v.Scenario, observe: dict[int, list[str]], states: bool) -> None:
        self.host, self.scenario, self.observe, self.states = host, scenario, observe, states
        self.spaces: dict[str, _SpaceLink] = {}
        self.gone: list[_SpaceLink] = []
        self.passes = 0
        self.unfinished = False
        self.uid = 0
        self.blocks: list[BlockPass] = []
        self.files: list[FilePass] = []
        self.memories: dict[str, int] = {}
        self.answers: list[StepAnswer] = []
        self.pages: list[PageState] = []

    def answer(self) -> dict[str, Any]:
        """What was answered, as ``results`` records in builtins."""
        return {
            "blocks": msgspec.to_builtins(self.blocks),
            "answers": msgspec.to_builtins(self.answers),
            "states": msgspec.to_builtins(self.pages),
            "files": msgspec.to_builtins(self.files),
        }

    def run(self, say: Callable[[int], None]) -> None:
        """Set the host up, start every space, take every step."""
        knobs.settle(self.scenario.host)
        rest()
        for space in self.scenario.spaces:
            self._start(space)
        libc.drain()
        for step, verb in enumerate(self.scenario.steps):
            say(step)
            self.take(step, verb)
            # Batches of the LRU are the kernel's affair inside a pass; between verbs they are always empty.
            libc.drain()

    def close(self) -> None:
        """End every process and reap it; shared memory goes with the last of them."""
        for space in self.spaces.values():
            space.end()
        self.spaces.clear()
        for memory in self.memories.values():
            os.close(memory)
        self.memories.clear()
        if any(space.shared is not None and space.shared.file for space in self.scenario.spaces):
            self.host.disk().clear()
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
        if self.unfinished:
            finish_pass()

    def _start(self, space: v.SpaceSpec) -> None:
        if space.gru:
            raise libc.SysError(22, f"space {space.name} has a GRU: no kernel here can show it")
        memory = self._memory(space)
        self.uid += 1
        pid = os.fork()
        if not pid:
            self.host.listener.close()
            for other in self.spaces.values():
                other.link.sock.close()
            worker.main(space, self.uid, self.host.device, memory)
        self._accept(space.name, space.blocks, _file(space))
        answer = self.spaces[space.name].link.receive()
        if "error" in answer:
            raise libc.SysError(5, answer["error"])

    def _memory(self, space: v.SpaceSpec) -> int:
        """The memfd that *space* maps, made when first asked for; -1: it maps none."""
        if space.shared is None:
            return -1
        if not self.host.tracer.sees_files:
            raise libc.SysError(
                95, f"space {space.name}: nothing in this kernel tells which file block is scanned"
            )
        name = space.shared.memory
        if space.shared.file:
            self.host.disk().create(name, v.memory_blocks(self.scenario, space))
            return -1
        if not name:
            return -1
        if name not in self.memories:
            self.memories[name] = os.memfd_create(name)
            os.ftruncate(self.memories[name], v.memory_blocks(self.scenario, space) * libc.BLOCK_BYTES)
        return self.memories[name]

    def _accept(self, name: str, blocks: int, file: str) -> None:
        sock, _ = self.host.listener.accept()
        link = worker.Link(sock)
        hello = link.receive()
        if hello["name"] != name:
            raise libc.SysError(5, f"space {hello['name']} announced itself instead of {name}")
        self.spaces[name] = _SpaceLink(name, hello["pid"], link, blocks, file)

    def take(self, step: int, verb: v.Verb) -> None:
        """Take one step, and keep what it answered."""
        errno: str | None = None
        took: str | dict[str, str] | None = None
        slots: tuple[tuple[int, int], ...] = ()
        match verb:
            case v.Scan():
                for _ in range(verb.passes):
                    self.run_passes(step, verb.pages)
            case v.Observe():
                self._observe(step, self.observe.get(step), "observe")
            case v.SetKnobs():
                self._knobs(verb)
            case v.Drain():
                pass
            case v.Fork():
                parent = self.spaces[verb.space]
                self.uid += 1
                parent.ask({"do": "fork", "child": verb.child, "uid": self.uid})
                self._accept(verb.child, parent.blocks, parent.file)
            case v.Exit():
                self.spaces.pop(verb.space).end()
            case v.KsmMerge():
                took = self._ksm()
            case v.SplitHuge():
                errno = self._split(self.spaces[verb.space], verb.pages)
            case v.Age():
                space = self.spaces[verb.space]
                took = self._age(space, verb.pages)
                space.ask({"do": "flush"})
            case _:
                space = self.spaces[verb.space]
                answer = space.ask({"do": "verb", "verb": msgspec.msgpack.encode(verb)})
                errno, took = answer["errno"], answer["took"]
                slots = tuple((int(first), int(count)) for first, count in answer["slots"])
        if errno is not None or took is not None:
            self.answers.append(StepAnswer(step, errno, took, slots))

    def _knobs(self, verb: v.SetKnobs) -> None:
        for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared"):
            value = getattr(verb, name)
            if value is not None:
                knobs.khugepaged(name, value)
        if verb.thp_enabled is not None:
            knobs.thp_enabled(verb.thp_enabled)

    def _age(self, space: _SpaceLink, text: str) -> str:
        """Age; the pages asked for, and those whose secondary entries went old beside them."""
        has_vm = any(s.name == space.name and s.vm for s in self.scenario.spaces)
        before = self.host.eyes.look(space.pid, space.blocks).secondary if has_vm else None
        done = age(space.pid, [int(p) for p in pagetext.parse(text, space.blocks)])
        if before is None or not done:
            return done
        after = self.host.eyes.look(space.pid, space.blocks).secondary
        asked = pagetext.parse(done, space.blocks)
        return pagetext.format(np.union1d(asked, np.flatnonzero(before & ~after)))

    def _split(self, space: _SpaceLink, text: str) -> str | None:
        """Split the blocks of *text*; the errno of a kernel that splits all of the machine's huge pages or none (before 5.13)."""
        for block in sorted({int(p) // HPAGE_PMD_NR for p in pagetext.parse(text, space.blocks)}):
            low = libc.AREA + block * libc.BLOCK_BYTES
            try:
                knobs.put(
                    "/sys/kernel/debug/split_huge_pages", f"{space.pid},{low:#x},{low + libc.BLOCK_BYTES:#x}"
                )
            except OSError as error:
                return errno_names.get(error.errno or 0, "?")
        return None

    def _ksm(self) -> dict[str, str]:
        """Run ksmd for as many scans as settle everything (``mm/ksm.py``), and one more: the last run may have left it in the middle.

        It sleeps on where no area could be made mergeable, as droppable ones cannot (vma_ksm_compatible): since 6.6 the pages that it has
        looked at tell.
        """
        ksm = Path("/sys/kernel/mm/ksm")
        before, looked = int(knobs.read(ksm / "full_scans")), ksm / "pages_scanned"
        pages = knobs.read(looked) if looked.exists() else None
        knobs.put(ksm / "run", 1)
        begun = time.monotonic()
        while (scans := int(knobs.read(ksm / "full_scans"))) < before + _KSM_SCANS:
            time.sleep(0.005)
            waited = time.monotonic() - begun
            if waited > _KSM_ASLEEP and scans == before and pages is not None and knobs.read(looked) == pages:
                break
            if waited > 60:
                raise TraceError("ksmd has not made its scans in 60 s")
        knobs.put(ksm / "run", 0)
        return {name: text for name, s in self.spaces.items() if (text := ksm_pages(s.pid, s.blocks))}

    def run_passes(self, step: int, pages: int | None) -> None:
        """Have khugepaged come by, for *pages* alone where that many are said, and note what it did at *step*."""
        self.passes += 1
        new = {s.pid: s for s in self.spaces.values() if not s.mm}
        if new:
            for pid, mm in self.host.tracer.mms(list(new), lambda pid: new[pid].ask({"do": "flush"})).items():
                new[pid].mm = mm
        young = self._observe(step, None, "before") if self.states else {}
        areas = {}
        for s in self.spaces.values():
            entries = worker.pagemap(s.pid, s.blocks)
            frames = np.where(
                (entries & worker.PM_PRESENT) != 0, entries & np.uint64((1 << 55) - 1), np.uint64(0)
            )
            areas[s.mm] = TracedSpace(s.name, libc.AREA, s.blocks, frames, s.file)
        libc.drain()
        self.host.tracer.start()
        if pages is None:
            one_pass()
        else:
            self.unfinished = True
            wake_up(pages)
        events = self.host.tracer.stop()
        visits = attribute(events, areas, self.passes)
        self.files += attribute_files(events, areas, self.passes)
        self.blocks += [
            msgspec.structs.replace(b, young=young[b.space][b.block]) if b.space in young else b
            for b in visits
        ]
        libc.drain()
        if self.states:
            self._observe(step, None, "after")

    def _observe(
        self, step: int, names: list[str] | None, at: Literal["observe", "before", "after"]
    ) -> dict[str, list[tuple[int, int, int]]]:
        """Record the spaces *names* (None: all); for each, its blocks' young pages by channel."""
        young = {}
        for name, s in self.spaces.items():
            if names is None or name in names:
                view = self.host.eyes.look(s.pid, s.blocks)
                self.pages.append(view.write_down(step, name, at, 0 if at == "observe" else self.passes))
                young[name] = view.young()
        return young
