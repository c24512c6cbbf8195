"""The VM around one command: what lies in its initramfs."""

import shutil

import pytest

from secondsight.cli.guest import libraries, write_initramfs
from secondsight.errors import MissingDependency, UsageError
from secondsight.lab import cpio


def has_static_busybox():
    busybox = shutil.which("busybox")
    return busybox is not None and not libraries(busybox)


needs_busybox = pytest.mark.skipif(not has_static_busybox(), reason="no static busybox")


@needs_busybox
def test_the_command_its_libraries_and_files_are_inside(tmp_path):
    (tmp_path / "data").write_bytes(b"data")
    path = tmp_path / "initramfs"
    write_initramfs(path, ["env", "A=b c", "true"], ["cat", f"{tmp_path}/data:/data"])
    entries = {entry.name: entry for entry in cpio.read(path.read_bytes())}
    assert {"init", "bin/busybox", "bin/env", "bin/cat", "data", "dev/console", "proc", "sys", "tmp"} <= set(
        entries
    )
    assert b"\nenv 'A=b c' true\n" in entries["init"].data
    assert entries["data"].data == b"data"
    for library in libraries(shutil.which("env")):
        assert str(library).lstrip("/") in entries


@needs_busybox
def test_busyboxs_own_programs_need_nothing_else(tmp_path, monkeypatch):
    busybox = shutil.which("busybox")
    monkeypatch.setattr(shutil, "which", lambda name: busybox if name == "busybox" else None)
    write_initramfs(tmp_path / "initramfs", ["sh", "-c", "true"], [])
    assert b"sh -c true" in (tmp_path / "initramfs").read_bytes()
    with pytest.raises(UsageError, match="nonesuch: no such program"):
        write_initramfs(tmp_path / "initramfs", ["nonesuch"], [])
    with pytest.raises(UsageError, match="no such file"):
        write_initramfs(tmp_path / "initramfs", ["sh"], ["/none:/such"])


def test_without_busybox_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="busybox-static"):
        write_initramfs(tmp_path / "initramfs", ["sh"], [])
