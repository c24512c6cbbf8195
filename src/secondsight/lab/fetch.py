"""A kernel from Debian's archive into the cache: whole or not at all, one run at a time.

apt ──▶ packages; of each, what is kept, in a folder beside the cache ──▶ vmlinuz, config, modules, manifest.json ──▶ kernels/RELEASE
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from secondsight import atomicfile
from secondsight.errors import SecondSightError, UsageError
from secondsight.lab.apt import Archive, sha256
from secondsight.lab.kernels import (
    MODULES,
    Kernel,
    Manifest,
    Say,
    cache_dir,
    cached,
    locked,
    names_in,
    read_manifest,
)
from secondsight.lab.offers import Offer, choose, valid

_WANTED = {name.replace("-", "_") for name in MODULES}
SCHEMA = 3
"""Of a manifest: raise it when more is kept of a kernel."""
_KEPT = 40 << 20  # bytes of a kernel's vmlinuz and modules, and some more; the largest seen is 16 MiB


def fetch(
    name: str, *, cache: Path | None = None, refresh: bool = False, say: Say = lambda text: None
) -> Kernel:
    """Bring kernel *name* (``newest``, a series, a version, a pin) into the cache; at once if it is there and not *refresh*.

    The kernel appears whole or not at all; two runs wait for each other. *say* is told what is being done, and before it
    begins how much there is to download and about how long that takes.

    :raises UsageError: a name that means nothing.
    :raises MissingDependency: without apt or a Debian source.
    :raises SecondSightError: apt fails or the disk is full.
    """
    if not valid(name):
        raise UsageError(
            f"no kernel is called {name!r}; a kernel is newest, a series (6.12), a version (6.12.43) or a pin (6.1=VERSION)"
        )
    cache = cache or cache_dir()
    folder = cache / "kernels"
    with locked(folder / ".lock", say):
        _clean(folder)
        names = names_in(folder)
        if name in names and not refresh:
            return cached(name, folder / names[name])
        try:
            archive = Archive(cache / "apt", say)
            offer = choose(name, archive.offers())
            final = folder / offer.release
            if not _is_here(final, offer):
                _bring(offer, archive, folder, say)
            give_name(folder, names, name, offer.release, say)
        except OSError as error:
            raise SecondSightError(
                f"{name} cannot be kept in {cache}: {error.strerror}; `secondsight lab drop NAME` removes a kernel, "
                "SECONDSIGHT_CACHE names another folder"
            ) from None
        return cached(name, final)


def available(*, cache: Path | None = None, say: Say = lambda text: None) -> list[Offer]:
    """Every kernel that the machine's Debian mirror has.

    :raises MissingDependency, SecondSightError: as :func:`fetch`.
    """
    cache = cache or cache_dir()
    with locked(cache / "kernels" / ".lock", say):
        return Archive(cache / "apt", say).offers()


def drop(name: str, *, cache: Path | None = None, say: Say = lambda text: None) -> int:
    """Remove kernel *name* from the cache, and its files where no other name stands for it; the bytes that became free.

    What kernels answered stays.

    :raises UsageError: no kernel of that name is here.
    """
    cache = cache or cache_dir()
    folder = cache / "kernels"
    with locked(folder / ".lock", say):
        _clean(folder)
        names = names_in(folder)
        if name not in names:
            raise UsageError(f"no kernel {name!r} is here; there are {', '.join(names) or 'none'}")
        release = names.pop(name)
        write(folder / "names.json", msgspec.json.format(msgspec.json.encode(names)))
        if release in names.values():
            return 0
        gone = [folder / release]
        with contextlib.suppress(SecondSightError):
            called = cached("", folder / release).release
            gone += (cache / "initramfs").glob(f"modules-{called}-*.cpio")
        with contextlib.suppress(OSError):
            # The unpacked kernel is named after the packed one's content (bzimage.unpack).
            gone.append(cache / "vmlinux" / f"vmlinux-{sha256(folder / release / 'vmlinuz')[:16]}")
        freed = 0
        for path in gone:
            files = [path, *path.rglob("*")]
            freed += sum(file.stat().st_size for file in files if file.is_file())
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return freed


def _clean(folder: Path) -> None:
    """Remove what a fetch that was killed has left."""
    for path in folder.glob(".fetch-*"):
        shutil.rmtree(path, ignore_errors=True)


def _is_here(final: Path, offer: Offer) -> bool:
    """Whether the cache holds this very kernel, under another name."""
    with contextlib.suppress(SecondSightError):
        manifest = read_manifest(final)
        return (manifest.schema, manifest.version) == (SCHEMA, offer.version)
    return False


def _bring(offer: Offer, archive: Archive, folder: Path, say: Say) -> None:
    """Download *offer* into ``folder/RELEASE``."""
    # The packages lie here one after the other.
    needed = max((package.size for package in offer.packages), default=0) + _KEPT
    free = shutil.disk_usage(folder).free
    minutes = offer.size / archive.speed / 60
    say(
        f"{offer.version} ({', '.join(offer.suites)}): {offer.size / 1e6:.0f} MB to download, "
        f"{'less than a minute' if minutes < 0.9 else f'about {minutes:.0f} min'} at {archive.speed / 1e6:.1f} MB/s; "
        f"{needed / 1e6:.0f} MB of {free / 1e6:.0f} MB free are needed meanwhile, some 20 MB are kept"
    )
    if free < needed:
        raise SecondSightError(
            f"{offer.version} needs {needed / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free; "
            "`secondsight lab drop NAME` removes a kernel, SECONDSIGHT_CACHE names another folder"
        )
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work:
        kernel = _unpack(Path(work), archive, offer, say)
        final = folder / offer.release
        if final.exists():
            shutil.rmtree(final)
        kernel.rename(final)


def give_name(folder: Path, names: dict[str, str], name: str, release: str, say: Say) -> None:
    """Let *name* stand for *release*. What it stood for keeps its version as its name."""
    before = names.get(name)
    names[name] = release
    if before not in (None, *names.values()):
        with contextlib.suppress(SecondSightError):
            version = cached("", folder / str(before)).version
            names[version] = str(before)
            say(
                f"{name} was {version}, which stays as {version}; `secondsight lab drop {version}` removes it"
            )
    write(folder / "names.json", msgspec.json.format(msgspec.json.encode(names)))


def _is_kept(path: str) -> bool:
    """Whether the file *path* of a package is looked at: the kernel, its configuration, the modules, and which are built in."""
    name = path.rpartition("/")[2]
    if name.startswith(("vmlinuz", "config")) or name == "modules.builtin":
        return True
    return ".ko" in name and name.split(".ko")[0].replace("-", "_") in _WANTED


def _unpack(work: Path, archive: Archive, offer: Offer, say: Say) -> Path:
    """Download the packages of *offer*; ``work/kernel``, with what is kept of them."""
    tree = work / "tree"
    tree.mkdir()
    for package in offer.packages:
        archive.unpack(package, work, tree, _is_kept)
    images = sorted(tree.rglob("vmlinuz*"))
    folders = sorted({path.parent for path in tree.glob("**/lib/modules/*/modules.builtin")})
    if not images or not folders:
        what = "modules" if images else "vmlinuz"
        raise SecondSightError(
            f"linux-image-{offer.release}: no {what} in the packages; the archive's layout has changed"
        )
    modules, release = folders[0], folders[0].name
    kernel = work / "kernel"
    (kernel / "modules").mkdir(parents=True)
    shutil.copy(images[0], kernel / "vmlinuz")
    for config in [*tree.rglob(f"config-{release}"), modules / "config"]:
        if config.is_file():
            shutil.copy(config, kernel / "config")
    for path in sorted(modules.rglob("*.ko*")):
        shutil.copy(path, kernel / "modules")
    inside = {Path(line).stem.replace("-", "_") for line in (modules / "modules.builtin").read_text().split()}
    files = {str(p.relative_to(kernel)): sha256(p) for p in sorted(kernel.rglob("*")) if p.is_file()}
    manifest = Manifest(
        SCHEMA, release, offer.version, list(offer.packages), files, sorted(_WANTED & inside), offer.suites
    )
    write(kernel / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
    say(f"kept {release}: vmlinuz and {sum('.ko' in name for name in files)} modules")
    return kernel


def write(path: Path, data: bytes) -> None:
    """Let *path* hold *data*, whole or not at all."""
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(data)
