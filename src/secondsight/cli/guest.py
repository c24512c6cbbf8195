"""A VM around one command, for ``record vm --kernel``: a lab kernel, an initramfs of busybox, the command and its libraries."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from secondsight.errors import MissingDependency, UsageError
from secondsight.lab import cpio, kernels

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
export PATH=/bin HOME=/tmp
cd /tmp
{command}
poweroff -f
"""


def libraries(program: Path) -> list[Path]:
    """The shared libraries that *program* loads, its loader among them, by ldd; none for a static program."""
    output = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(word) for word in re.findall(r"(?:=> |^\s+)(/\S+)", output, re.MULTILINE)]


def write_initramfs(path: Path, command: Sequence[str], files: Sequence[str]) -> None:
    """Write to *path* an initramfs that runs *command* and powers off.

    *files*: what else the guest needs: programs by name (with their libraries), or ``HOST:GUEST`` paths.

    :raises MissingDependency: without busybox.
    :raises UsageError: a program or file that is not there.
    """
    busybox = shutil.which("busybox")
    if busybox is None or libraries(Path(busybox)):
        raise MissingDependency("the guest needs a static busybox (Debian: apt install busybox-static)")
    inside = {"/bin/busybox": Path(busybox)}
    for name in (command[0], *files):
        host, colon, guest = name.partition(":")
        program = shutil.which(host)
        source = Path(host) if colon else Path(program or "")
        if not source.is_file():
            if name is command[0] and _in_busybox(busybox, name):
                continue
            raise UsageError(f"{host}: no such {'file' if colon else 'program'} to take into the guest")
        inside[guest or f"/bin/{source.name}"] = source.resolve()
        for library in libraries(source):
            inside[str(library)] = library.resolve()
    line = shlex.join([Path(command[0]).name, *command[1:]])
    with path.open("wb") as out:
        writer = cpio.Writer(out)
        writer.device("/dev/console", 5, 1)
        for folder in ("/proc", "/sys", "/tmp"):
            writer.folder(folder)
        writer.file("/init", _INIT.format(command=line).encode(), 0o755)
        for guest, source in inside.items():
            writer.file(guest, source.read_bytes(), 0o755)
        writer.close()


def _in_busybox(busybox: str, name: str) -> bool:
    """Whether *name* is one of busybox's own programs (sh, dd, …)."""
    output = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=False).stdout
    return name in output.split()


@contextlib.contextmanager
def machine(kernel: str, command: Sequence[str], files: Sequence[str], memory: str) -> Iterator[list[str]]:
    """QEMU's arguments for a VM of *memory* that boots lab kernel *kernel* and runs *command*; its initramfs lives as long."""
    resolved = kernels.resolve(kernel)
    with tempfile.TemporaryDirectory(prefix="secondsight-") as directory:
        initramfs = Path(directory) / "initramfs"
        write_initramfs(initramfs, command, files)
        yield [
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", memory, "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(resolved.vmlinuz), "-initrd", str(initramfs),
            "-append", "console=ttyS0 quiet loglevel=4 panic=-1",
        ]  # fmt: skip
