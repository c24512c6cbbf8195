import hashlib
import lzma
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from secondsight.errors import InputError, MissingDependency, SecondSightError, UsageError
from secondsight.lab import kernels
from secondsight.lab.kernels import Kernel, Manifest


def module(name: str, *depends: str) -> bytes:
    return b"\x7fELF" + f"\0name={name}\0depends={','.join(depends)}\0retpoline=Y\0".encode()


def put(cache: Path, name: str, release: str, version: str) -> None:
    folder = cache / "kernels" / release
    (folder / "modules").mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(b"kernel")
    manifest = Manifest(1, release, version, [], {"vmlinuz": hashlib.sha256(b"kernel").hexdigest()}, [])
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    path = cache / "kernels" / "names.json"
    names = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    path.write_bytes(msgspec.json.encode({**names, name: release}))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    put(tmp_path, "6.1", "6.1.0-56-amd64", "6.1.192-2")
    put(tmp_path, "6.1=6.1.170-3", "6.1.0-47-amd64", "6.1.170-3")
    put(tmp_path, "newest", "7.2.13+deb14-amd64", "7.2.13-1")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("6.1", "6.1.192-2"), ("newest", "7.2.13-1"), ("7.2", "7.2.13-1"), ("7.2.13", "7.2.13-1"), ("7",
        "7.2.13-1"), ("7.2.13+deb14-amd64", "7.2.13-1"), ("6.1.170-3", "6.1.170-3"), ("6.1=6.1.170-3",
        "6.1.170-3"), ("6.1.0-47-amd64", "6.1.170-3"),
    ],
)  # fmt: skip
def test_a_name_a_version_or_its_beginning_finds_the_kernel(cache: Path, name: str, version: str) -> None:
    kernel = kernels.resolve(name, cache=cache)
    assert kernel.version == version and kernel.vmlinuz.read_bytes() == b"kernel"


def test_what_is_not_fetched_is_not_answered_by_another(cache: Path) -> None:
    (cache / "kernels" / "names.json").write_text('{"6.1=6.1.170-3": "6.1.0-47-amd64"}')
    with pytest.raises(MissingDependency, match=r"lab fetch 6\.1"):
        kernels.resolve("6.1", cache=cache)
    with pytest.raises(MissingDependency, match=r"lab fetch 6\.12=6\.12\.9"):
        kernels.resolve("6.12=6.12.9", cache=cache)
    with pytest.raises(MissingDependency, match=r"lab fetch 5\.4"):
        kernels.resolve("5.4", cache=cache)
    for name in ("6.", "", "6.1x", "noise"):
        with pytest.raises(UsageError):
            kernels.resolve(name, cache=cache)


def test_a_torn_manifest_is_named(cache: Path) -> None:
    path = cache / "kernels" / "6.1.0-56-amd64" / "manifest.json"
    path.write_text('{"schema": 1, "release":')
    with pytest.raises(InputError, match=r"manifest\.json"):
        kernels.resolve("6.1", cache=cache)
    path.unlink()
    with pytest.raises(MissingDependency, match="--refresh"):
        kernels.installed(cache)
    (cache / "kernels" / "names.json").write_text("[]")
    with pytest.raises(InputError, match=r"names\.json"):
        kernels.installed(cache)


def test_a_kernel_of_the_users_own(tmp_path: Path) -> None:
    head = bytearray(0x300)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x80)
    head[0x280:0x290] = b"6.9.0-mine (me@h"
    path = tmp_path / "vmlinuz"
    path.write_bytes(head)
    kernel = kernels.resolve(str(path), modules=tmp_path)
    assert kernel == Kernel("6.9.0-mine", "6.9.0-mine", "6.9.0-mine", path.resolve(), tmp_path.resolve())
    path.write_bytes(b"\x7fELF" + bytes(0x300))
    with pytest.raises(InputError, match="bzImage"):
        kernels.resolve(str(path))
    with pytest.raises(UsageError, match="no kernel at"):
        kernels.resolve("/none/vmlinuz")
    with pytest.raises(UsageError, match="path to a vmlinuz"):
        kernels.resolve("6.1", modules=tmp_path)


def test_a_kernel_for_another_machine_is_refused_before_it_is_booted(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    head = bytearray(0x300)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)  # protocol 2.15, and xloadflags without XLF_KERNEL_64
    path.write_bytes(head)
    with pytest.raises(InputError, match="a 32-bit kernel; the lab's machines take amd64 ones"):
        kernels.resolve(str(path))
    head[0x236] = 1
    path.write_bytes(head)
    assert kernels.resolve(str(path)).modules is None
    arm64 = bytearray(0x300)
    arm64[:2], arm64[0x38:0x3C] = b"MZ", b"ARM\x64"
    path.write_bytes(arm64)
    with pytest.raises(InputError, match="of another architecture"):
        kernels.resolve(str(path))
    path.write_bytes(b"MZ\0\0zimg" + bytes(0x300))
    with pytest.raises(InputError, match="of another architecture"):
        kernels.resolve(str(path))
    path.write_bytes(b"MZ")
    with pytest.raises(InputError, match="not an x86 bzImage"):
        kernels.resolve(str(path))


def test_modules_load_after_what_they_depend_on(tmp_path: Path) -> None:
    tree = tmp_path / "kernel" / "kvm"
    tree.mkdir(parents=True)
    (tree / "kvm-amd.ko").write_bytes(module("kvm_amd", "kvm", "ccp", "gone"))
    (tree / "kvm.ko.xz").write_bytes(lzma.compress(module("kvm", "irqbypass")))
    (tree / "ccp.ko").write_bytes(module("ccp"))
    (tree / "irqbypass.ko").write_bytes(module("irqbypass", "kvm"))  # a circle must not hang
    kernel = Kernel("k", "k", "k", tmp_path / "vmlinuz", tmp_path)
    order = kernel.load_order("kvm-amd", "ccp", "no_such")
    assert list(order) == ["irqbypass", "kvm", "ccp", "kvm-amd"]
    assert order["kvm"] == module("kvm", "irqbypass")
    assert kernel.module("kvm_amd") == kernel.module("kvm-amd")
    assert Kernel("k", "k", "k", tmp_path, None).load_order("kvm") == {}


HOLD = """
import sys, time
from pathlib import Path
from secondsight.lab import kernels
path = Path(sys.argv[1])
with kernels.locked(path):
    print("held", flush=True)
    time.sleep(0.5)
    path.with_name("done").touch()
"""


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        said: list[str] = []
        with kernels.locked(path, said.append):
            assert (tmp_path / "done").exists()
    assert len(said) == 1 and str(path) in said[0]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SecondSightError, match="SECONDSIGHT_CACHE"),
        kernels.locked(tmp_path / "file" / "lock"),
    ):
        pass
