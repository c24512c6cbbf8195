"""A VM and a JVM that a test asks what is in their memory: QEMU through QMP, a Java program through its standard streams.

Both fill memory with what cannot be guessed, in small pages, and give its digest as they read it themselves, so that what a collapse
lost or mixed up would be seen. Each skips with the reason where its program is not installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MIB = 1 << 20
#: of the guest's RAM, and where in it what is known lies, beyond what the firmware touches
RAM, FILLED, AT = 128 * MIB, 64 * MIB, 32 * MIB


def refuse_advice() -> None:
    """From here on madvise(MADV_HUGEPAGE) answers EINVAL, as in a sandbox: QEMU marks its RAM, which would be huge from its first fault.

    A seccomp filter (linux/seccomp.h) over struct seccomp_data: the architecture, nr, then the low half of the third argument.
    """

    def step(code: int, yes: int, no: int, k: int) -> bytes:
        return struct.pack("=HBBI", code, yes, no, k)

    load, equal, done = 0x20, 0x15, 0x06
    program = b"".join(
        [
            step(load, 0, 0, 4), step(equal, 0, 5, 0xC000003E),  # AUDIT_ARCH_X86_64
            step(load, 0, 0, 0), step(equal, 0, 3, 28),  # madvise
            step(load, 0, 0, 32), step(equal, 0, 1, 14),  # MADV_HUGEPAGE
            step(done, 0, 0, 0x00050000 | 22),  # SECCOMP_RET_ERRNO, EINVAL
            step(done, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        ]
    )  # fmt: skip
    code = ctypes.create_string_buffer(program, len(program))
    filled = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(filled), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


class Vm(NamedTuple):
    """A running QEMU: *pid*; *digest*: of what its guest's RAM was filled with; *folder*: where it may write."""

    pid: int
    digest: str
    folder: Path
    monitor: socket.socket

    def ask(self, command: str, **arguments: Any) -> Any:
        """What QMP answers."""
        self.monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        heard = b""
        while True:
            heard += self.monitor.recv(1 << 16)
            *lines, heard = heard.split(b"\n")
            for line in map(json.loads, filter(bytes.strip, lines)):
                assert "error" not in line, line
                if "return" in line:
                    return line["return"]

    def content(self) -> str:
        """A digest of what was filled, as QEMU reads it out of its guest's memory."""
        saved = self.folder / "memory"
        self.ask("pmemsave", val=AT, size=FILLED, filename=str(saved))
        return hashlib.blake2b(saved.read_bytes()).hexdigest()


@contextlib.contextmanager
def vm(backend: str) -> Iterator[Vm]:
    """QEMU with 128 MiB of RAM by *backend* (``memory-backend-memfd,share=on``), half of it filled, its firmware running.

    ``SHM`` in *backend* becomes the name of a file on a tmpfs.
    """
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    folder = Path(tempfile.mkdtemp(prefix="secondsight-vm-", dir="/tmp"))
    shared = Path("/dev/shm") / folder.name
    try:
        content = os.urandom(FILLED)
        (folder / "content").write_bytes(content)
        argv = [
            qemu, "-name", "collapsed", "-machine", "q35,memory-backend=ram", "-accel", "tcg", "-m", f"{RAM // MIB}M",
            "-object", f"{backend.replace('SHM', str(shared))},id=ram,size={RAM // MIB}M", "-nodefaults", "-display", "none",
            "-device", f"loader,file={folder / 'content'},addr={AT:#x},force-raw=on",
            "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
        ]  # fmt: skip
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=refuse_advice
        ) as child:
            try:
                with socket.socket(socket.AF_UNIX) as monitor:
                    monitor.settimeout(60)
                    for _ in range(600):
                        with contextlib.suppress(OSError):
                            monitor.connect(str(folder / "qmp"))
                            break
                        assert child.poll() is None, "QEMU did not start"
                        time.sleep(0.1)
                    made = Vm(child.pid, hashlib.blake2b(content).hexdigest(), folder, monitor)
                    made.ask("qmp_capabilities")
                    yield made
            finally:
                child.kill()
    finally:
        shared.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


#: fills its heap with random bytes, then answers each line with their checksum, after a collection of garbage
JAVA = """
import java.util.*; import java.util.zip.*;
public class Filled {
  public static void main(String[] a) throws Exception {
    byte[][] parts = new byte[96][];
    Random random = new Random();
    for (int i = 0; i < parts.length; i++) { parts[i] = new byte[1 << 19]; random.nextBytes(parts[i]); }
    Scanner in = new Scanner(System.in);
    System.out.println(ProcessHandle.current().pid());
    while (in.hasNextLine()) {
      if (in.nextLine().equals("gc")) System.gc();
      CRC32 sum = new CRC32();
      for (byte[] part : parts) sum.update(part);
      System.out.println(sum.getValue());
    }
  }
}
"""


class Jvm(NamedTuple):
    """A Java program whose heap of 96 MiB is half filled: *pid*."""

    pid: int
    child: subprocess.Popen[str]

    def ask(self, word: str) -> int:
        """The checksum of what it holds, as it reads it; ``gc``: after its garbage was collected, which moves objects."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write(f"{word}\n")
        return int(self.child.stdout.readline())


@contextlib.contextmanager
def jvm() -> Iterator[Jvm]:
    """A JVM with a program of its own, compiled as it starts."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("java is not installed")
    modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False).stdout
    if "jdk.compiler@" not in modules:
        pytest.skip("this java is without its compiler (a JDK has it)")
    with tempfile.TemporaryDirectory(prefix="secondsight-jvm-", dir="/tmp") as folder:
        source = Path(folder) / "Filled.java"
        source.write_text(JAVA)
        argv = [java, "-Xms96m", "-Xmx96m", "-XX:+UseSerialGC", "-XX:+AlwaysPreTouch", str(source)]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        ) as child:
            try:
                assert child.stdout is not None
                yield Jvm(int(child.stdout.readline()), child)
            finally:
                child.kill()
