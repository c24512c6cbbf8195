"""Kernels for the lab: found with the machine's own apt client, kept in the user's cache, never installed.

A kernel is two things here: a ``vmlinuz`` and the modules that the lab loads. They come from any suite of Debian's (``offers`` says
what a name means), and anything with a slash is a path to a vmlinuz of the user's own. In the cache, ``kernels/RELEASE/`` holds
``vmlinuz``, ``config``, ``modules/*.ko*`` and ``manifest.json``; ``kernels/names.json`` says which release a name stands for.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from secondsight.errors import InputError, MissingDependency, SecondSightError, UsageError
from secondsight.lab.offers import NEWEST, Package, is_series, valid, version_key

MODULES = (
    "irqbypass", "kvm", "ccp", "kvm-amd", "kvm-intel",  # the secondary MMUs
    "brd", "zram", "zsmalloc", "842_compress", "842_decompress", "lz4_compress", "lz4hc_compress",  # swap
    "rng-core",  # which ccp needs in 5.10
    "ext4", "jbd2", "mbcache", "crc16", "crc32c-generic", "crc32c-intel", "libcrc32c",  # files on a disk
    "qemu_fw_cfg",  # the note that lets a host-side drgn find the kernel
    "virtio", "virtio_ring", "virtio_pci", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_console",
)  # fmt: skip
"""Modules that are kept from a package; one that a kernel has built in, or has not, is passed over."""

Say = Callable[[str], None]


def upstream(release: str, version: str) -> str:
    """What says which point release it is: Debian's *version* (5.10.218-1), where *release* may be an ABI's name (5.10.0-30-amd64)."""
    return version if re.match(r"\d+\.\d+\.\d", version) else release


class Kernel(msgspec.Struct, frozen=True):
    """A kernel that can be booted.

    *name*: what the user called it; *release*: ``uname -r``; *version*: Debian's package version, or
    *release* for a kernel of the user's own; *vmlinuz*: the bzImage; *modules*: a folder searched for
    ``NAME.ko``, ``.ko.xz``, ``.ko.gz`` or ``.ko.zst`` at any depth, or None; *checks*: it has to check their signatures, since
    nobody else vouches for them.
    """

    name: str
    release: str
    version: str
    vmlinuz: Path
    modules: Path | None
    checks: bool = False

    @property
    def upstream(self) -> str:
        """:func:`upstream` of it."""
        return upstream(self.release, self.version)

    def module(self, name: str) -> bytes | None:
        """The ELF of module *name* (``kvm-amd``), decompressed; None where this kernel has no such file."""
        if self.modules is None:
            return None
        spellings = {name, name.replace("-", "_"), name.replace("_", "-")}
        for path in sorted(self.modules.rglob("*.ko*")):
            if path.name.split(".ko")[0] in spellings:
                return _decompressed(path)
        return None

    def load_order(self, *names: str) -> dict[str, bytes]:
        """Modules *names* and all they depend on, each after its dependencies; missing ones left out.

        Dependencies are read from each module's own ``depends=`` (``.modinfo``), so no depmod is needed.
        """
        order: dict[str, bytes] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            key = name.replace("_", "-")
            if key in order or key in above:
                return
            elf = self.module(name)
            if elf is None:
                return
            depends = re.search(rb"\0depends=([^\0]*)\0", elf)
            for need in depends[1].decode().split(",") if depends and depends[1] else []:
                visit(need, (*above, key))
            order[key] = elf

        for name in names:
            visit(name, ())
        return order


class Manifest(msgspec.Struct, frozen=True):
    """What ``manifest.json`` of a kernel in the cache says."""

    schema: int
    release: str
    version: str
    packages: list[Package]
    files: dict[str, str]
    """sha256 of every kept file, by its path in the kernel's folder."""
    builtin: list[str]
    """Those of MODULES that this kernel has built in."""
    suites: tuple[str, ...] = ()
    """Debian's suites that had this version when it was fetched."""
    built: str = ""
    """Of a kernel that ``lab build`` made: what of."""


def cache_dir() -> Path:
    """``$SECONDSIGHT_CACHE``, else ``secondsight`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("SECONDSIGHT_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "secondsight"


@contextlib.contextmanager
def locked(path: Path, say: Say | None = None) -> Iterator[None]:
    """Hold an exclusive lock on file *path*; *say* is told when another run has to be waited for.

    :raises SecondSightError: its folder cannot be written in.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise SecondSightError(
            f"cannot write in the cache {path.parent}: {error.strerror}; "
            "set SECONDSIGHT_CACHE to a folder that you own"
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say:
                say(f"waiting for another run that holds {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def manifest(name: str, cache: Path | None = None) -> Manifest:
    """The manifest of kernel *name* in the cache.

    :raises InputError, MissingDependency: it is torn or gone.
    """
    folder = (cache or cache_dir()) / "kernels"
    return read_manifest(folder / names_in(folder)[name])


def installed(cache: Path | None = None) -> dict[str, Manifest]:
    """The manifests of the kernels in the cache, by name.

    :raises InputError, MissingDependency: one is torn or gone.
    """
    folder = (cache or cache_dir()) / "kernels"
    return {name: read_manifest(folder / release) for name, release in names_in(folder).items()}


def resolve(name: str, *, modules: Path | None = None, cache: Path | None = None) -> Kernel:
    """The kernel that *name* stands for.

    *name* is what it was fetched as, the version or release of a kernel in the cache or the beginning of one (``7.2``,
    ``6.1.0-56-amd64``), or a path to a vmlinuz, for which *modules* is its module tree.

    :raises UsageError: a name that means nothing.
    :raises MissingDependency: a kernel that has not been fetched.
    """
    if "/" in name:
        return _own(Path(name), modules)
    if modules is not None:
        raise UsageError(f"a module tree goes with a path to a vmlinuz, and {name!r} is a name")
    folder = (cache or cache_dir()) / "kernels"
    names = names_in(folder)
    if name not in names and name:
        name = _stands_for(name, names, folder) or name
    if name in names:
        return cached(name, folder / names[name])
    if valid(name):
        built = is_series(name.partition("+")[0]) and "+" in name
        gets = (
            f"`secondsight lab build --name {name}` makes it"
            if built
            else f"`secondsight lab fetch {name}` gets it"
        )
        raise MissingDependency(f"kernel {name} is not in the cache; {gets}")
    raise UsageError(
        f"no kernel is called {name!r}; a kernel is newest, a series (6.12), a version (6.12.43), a pin (6.1=VERSION) or a path"
    )


def _stands_for(name: str, names: dict[str, str], folder: Path) -> str | None:
    """The name, of those in the cache, of the newest kernel whose version or release is *name* or begins so."""
    begins = re.compile(re.escape(name) + r"([.\-+~]|$)")
    hits = []
    for known, release in names.items():
        # One version of a series must not pass for the newest of it, which a series or `newest` was when it was fetched.
        if is_series(name) and not (known == NEWEST or is_series(known)):
            continue
        with contextlib.suppress(SecondSightError):
            version = (manifest := read_manifest(folder / release)).version
            # Nor must one that was built here: it is meant by its own name.
            if manifest.built and name not in (version, release):
                continue
            if begins.match(version) or begins.match(release):
                hits.append((name in (version, release), version_key(version), known))
    return max(hits)[2] if hits else None


def cached(name: str, folder: Path) -> Kernel:
    """The kernel *name*, kept in *folder*.

    :raises MissingDependency, InputError: its manifest is gone or torn.
    """
    manifest = read_manifest(folder)
    checks = not all(package.listed for package in manifest.packages)
    return Kernel(name, manifest.release, manifest.version, folder / "vmlinuz", folder / "modules", checks)


def _own(vmlinuz: Path, modules: Path | None) -> Kernel:
    if not vmlinuz.is_file():
        raise UsageError(f"no kernel at {vmlinuz}; give a path to a bzImage (vmlinuz)")
    with vmlinuz.open("rb") as handle:
        head = handle.read(0x250)
        # The boot protocol's header: "HdrS" at 0x202; at 0x20e, less 512, where the version string lies
        # (Documentation/arch/x86/boot.rst).
        if head[0x38:0x3C] == b"ARM\x64" or head[4:8] == b"zimg":
            # Documentation/arch/arm64/booting.rst; an EFI zboot image says what it packs, not for whom.
            raise InputError(
                str(vmlinuz),
                "byte 56",
                "a kernel of another architecture; the lab's machines take amd64 ones",
            )
        if head[0x202:0x206] != b"HdrS":
            raise InputError(
                str(vmlinuz),
                "byte 514",
                "not an x86 bzImage (no HdrS); give the vmlinuz, not the ELF vmlinux",
            )
        # xloadflags, bit 0 (XLF_KERNEL_64), since protocol 2.12.
        if int.from_bytes(head[0x206:0x208], "little") >= 0x20C and not head[0x236] & 1:
            raise InputError(str(vmlinuz), "byte 566", "a 32-bit kernel; the lab's machines take amd64 ones")
        handle.seek(0x200 + int.from_bytes(head[0x20E:0x210], "little"))
        words = handle.read(256).split(b"\0")[0].split()
    release = words[0].decode("ascii", "replace") if words else vmlinuz.name
    if modules is not None and not modules.is_dir():
        raise UsageError(f"no module tree at {modules}")
    return Kernel(release, release, release, vmlinuz.resolve(), modules.resolve() if modules else None)


def names_in(folder: Path) -> dict[str, str]:
    """The releases that the names in the cache's *folder* stand for.

    :raises InputError: they are torn.
    """
    path = folder / "names.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise InputError(
            str(path), "", f"not what fetch wrote ({error}); remove it and fetch again"
        ) from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest in *folder* of the cache.

    :raises InputError, MissingDependency: it is torn or gone.
    """
    path = folder / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise MissingDependency(
            f"{path} is gone; `secondsight lab fetch --refresh` brings the kernel back"
        ) from None
    except msgspec.DecodeError as error:
        raise InputError(str(path), "", f"not what fetch wrote ({error}); fetch with --refresh") from None


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.decompress(data)
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
