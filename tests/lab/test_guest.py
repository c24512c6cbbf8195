"""The host's side of a run, with a Python script in the emulator's place."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secondsight.lab import machine
from secondsight.lab.guest import Guest, GuestDied
from secondsight.lab.kernels import Kernel
from secondsight.lab.machine import Launch, Limits, Machine

KERNEL = Kernel("k", "k", "k", Path("/none"), None)
PRELUDE = """
import os, socket, sys, time
console = open(sys.argv[1], "wb", buffering=0)
def connect():
    line = socket.socket(socket.AF_UNIX); line.connect(sys.argv[2]); return line, line.makefile("rb")
"""


class Fake:
    """An emulator that is a Python script: argv holds the console, the line's address and the initramfs."""

    family = socket.AF_UNIX

    def __init__(self, script: str, *, terminal: bool = False) -> None:
        self.script, self.terminal = PRELUDE + textwrap.dedent(script), terminal

    def missing(self) -> str | None:
        return None

    def command(self, launch: Launch, machine: Machine) -> list[str]:
        address = launch.listener.getsockname()
        return [sys.executable, "-S", "-c", self.script, str(launch.console), address, launch.initrd]


@contextmanager
def run(script: str, *, terminal: bool = False, busy: bool = False) -> Iterator[Guest]:
    fake = Machine(
        "fake", "", Fake(script, terminal=terminal), cpu="", modules={}, check={}, limits=Limits(busy=busy)
    )
    with machine.running(fake, Path("/none"), KERNEL, [b"init", b"ramfs"], "", 64, False) as guest:
        yield guest


def test_values_go_both_ways_and_the_end_is_none() -> None:
    echo = r"""
        line, lines = connect()
        console.write(b"hello\r\n" + open(sys.argv[3], "rb").read())
        for text in lines:
            if text == b'"stop"\n': break
            line.sendall(text)
        line.sendall(b'{"exit":0}\n')
    """
    with run(echo) as guest:
        for value in ({"a": 1}, list(range(4000)), "x"):
            guest.send(value)
            assert guest.receive(20) == value
        guest.send("stop")
        assert list(guest) == []
        assert guest.console == "hello\ninitramfs"


def test_a_program_that_fails_gives_its_status_and_the_console() -> None:
    with run(r"""
        line, _ = connect()
        console.write(b"Traceback: boom\n")
        line.sendall(b'{"x":1}\n{"exit":3}\n')
        time.sleep(60)
    """) as guest:
        assert guest.receive(20) == {"x": 1}
        with pytest.raises(GuestDied, match=r"status 3(.|\n)*boom") as caught:
            guest.receive(20)
    assert caught.value.status == 3


def test_a_panic_is_seen_at_once_with_its_text() -> None:
    with run(r"""
        console.write(b"[    1.0] Kernel panic - not syncing: ")
        time.sleep(0.1)
        console.write(b"out of ideas\n")
        time.sleep(60)
    """) as guest:
        begin = time.monotonic()
        with pytest.raises(GuestDied, match="out of ideas") as caught:
            guest.receive(50)
        assert (
            caught.value.why.endswith("lost: Kernel panic - not syncing: out of ideas")
            and time.monotonic() - begin < 20
        )


def test_silence_is_an_end() -> None:
    with run("time.sleep(60)") as guest, pytest.raises(GuestDied, match="nothing came from it"):
        guest.receive(0.3)


def test_an_emulator_that_is_always_busy_and_stops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secondsight.lab.guest.STOPPED_AFTER", 0.5)
    with run("time.sleep(60)", busy=True) as guest, pytest.raises(GuestDied, match="emulator has stopped"):
        guest.receive(30)
    with (
        run("while True: pass", busy=True) as guest,
        pytest.raises(GuestDied, match="nothing came from it"),
    ):
        guest.receive(2)


def test_an_emulator_that_ends_early_is_quoted() -> None:
    with (
        pytest.raises(GuestDied, match=r"status 4.*no such machine"),
        run("print('no such machine', file=sys.stderr); sys.exit(4)") as guest,
    ):
        guest.receive(20)


def test_a_garbled_line_is_an_end() -> None:
    with (
        run("line, _ = connect(); line.sendall(b'{]\\n'); time.sleep(60)") as guest,
        pytest.raises(GuestDied, match="garbled"),
    ):
        guest.receive(20)


def test_what_came_before_the_end_is_delivered() -> None:
    with run(r"""
        line, _ = connect()
        for i in range(500): line.sendall(b"%d\n" % i)
        line.sendall(b'{"exit":0}\n')
    """) as guest:
        assert list(guest) == list(range(500))


def test_a_terminal_that_is_drawn_on_does_not_stop_the_emulator() -> None:
    with run(r"""
        line, _ = connect()
        for i in range(200): os.write(1, b"x" * 1000)
        line.sendall(b'{"exit":0}\n')
    """, terminal=True) as guest:  # fmt: skip
        assert guest.receive(20) is None


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_leaving_the_block_ends_the_emulator_and_removes_the_folder() -> None:
    with (
        pytest.raises(RuntimeError),
        run("line, _ = connect(); line.sendall(b'%d\\n' % os.getpid()); time.sleep(60)") as guest,
    ):
        pid, folder = guest.receive(20), guest.folder
        assert alive(pid) and folder.is_dir()
        raise RuntimeError
    assert gone(pid) and not folder.exists()


def test_no_guest_outlives_a_killed_host(tmp_path: Path) -> None:
    host = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_guest import run
with run("line, _ = connect(); line.sendall(b'%d\\\\n' % os.getpid()); time.sleep(60)") as guest:
    print(guest.receive(30), flush=True); guest.receive(60)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", host], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.send_signal(signal.SIGKILL)
    assert gone(pid)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []


def test_init_quotes_what_it_is_given() -> None:
    script = machine.init_script({"kvm-amd": "npt=0"}, {"/sys/x": "N"}, ["-c", "print('a b')"])
    assert "insmod /mod/kvm-amd.ko npt=0\n" in script
    assert r"python3 -S '-c' 'print('\''a b'\'')'" in script
    assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


def test_a_dead_guests_console_is_told_line_by_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from secondsight import cli

    def dies(_: list[str]) -> None:
        raise GuestDied("it panicked", "first\x1b[2J\nKernel panic\n")

    monkeypatch.setattr(cli, "run_words", dies)
    with pytest.raises(SystemExit):
        cli.main(["lab"])
    message = capsys.readouterr().err
    assert message == (
        "secondsight: the guest died: it panicked; its console ended with\n"
        "  | first\\x1b[2J\n  | Kernel panic\n"
    )
