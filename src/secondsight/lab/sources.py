"""A kernel's source to build from: Debian's package of it, or a tree of the user's, in a folder of the cache.

linux-source-7.3 ── apt, tar ──▶ builds/linux-source-7.3_VERSION/source     unpacked once, whole or not at all
DIR ── links, or copies ───────▶ builds/DIRNAME-HASH/source                 the user's own tree is never changed
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from secondsight.errors import SecondSightError, UsageError
from secondsight.lab.apt import Archive
from secondsight.lab.kernels import Say
from secondsight.lab.patches import restore

__all__ = ["KernelSource", "check", "debian", "own"]

_SIZE = 2_000_000_000  # bytes of an unpacked source; 7.3's are 1.6e9, and blocks round them up


class KernelSource(msgspec.Struct, frozen=True):
    """A source that can be built: *name* for people, *version* (of the kernel or of its package), *identity* of its content, and
    *folder*: ``folder/source`` is the tree, and beside it lies what is built of it."""

    name: str
    version: str
    identity: str
    folder: Path

    @property
    def tree(self) -> Path:
        """The tree."""
        return self.folder / "source"


def check(tree: Path) -> str:
    """The version that *tree* says it is, ``7.3.4``.

    :raises UsageError: it is no Linux source.
    """
    try:
        text = (tree / "Makefile").read_text(errors="replace")
    except OSError:
        raise UsageError(f"{tree}: no Linux source: it has no Makefile") from None
    fields = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)$", text, re.MULTILINE)
    )
    if not fields.get("VERSION") or not (tree / "mm").is_dir() or not (tree / "arch/x86").is_dir():
        raise UsageError(
            f"{tree}: no Linux source: its Makefile says no version, or it has no mm and arch/x86"
        )
    numbers = [fields["VERSION"], fields.get("PATCHLEVEL", "0"), fields.get("SUBLEVEL") or "0"]
    return ".".join(numbers) + fields.get("EXTRAVERSION", "")


def debian(name: str, cache: Path, say: Say) -> KernelSource:
    """Debian's source package *name*, unpacked into the *cache*; at once where it is there already and *name* says the version.

    :raises UsageError: a package that there is not.
    :raises MissingDependency: without apt.
    :raises SecondSightError: the network or the disk fails.
    """
    builds = cache / "builds"
    called, _, version = name.partition("=")
    if version and (builds / f"{called}_{version}" / "source").is_dir():
        return KernelSource(called, version, f"{called}_{version}", builds / f"{called}_{version}")
    archive = Archive(cache / "apt", say)
    try:
        package = archive.source(name)
    except UsageError:
        raise
    except SecondSightError as error:
        here = sorted(path.name for path in builds.glob(f"{called}_*") if (path / "source").is_dir())
        if not here:
            raise
        say(f"{error}; {here[-1]} is here, and taken")
        return KernelSource(called, here[-1].partition("_")[2], here[-1], builds / here[-1])
    folder = builds / f"{called}_{package.version}"
    source = KernelSource(called, package.version, folder.name, folder)
    if source.tree.is_dir():
        return source
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(".unpack-*"):
        shutil.rmtree(old, ignore_errors=True)
    require_space(folder, package.size * 2 + _SIZE, f"the source {called} {package.version}")
    minutes = package.size / archive.speed / 60
    say(f"{called} {package.version}: {package.size / 1e6:.0f} MB to download, "
        f"{'less than a minute' if minutes < 0.9 else f'about {minutes:.0f} min'}, and about a minute to unpack")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as work:
        archive.unpack(package, Path(work), Path(work), lambda path: ".tar" in path.rpartition("/")[2])
        packed = sorted(Path(work).rglob("*.tar*"))
        if not packed:
            raise SecondSightError(
                f"{called} {package.version} holds no tar of a source; the archive's layout has changed"
            )
        say("unpacking")
        (Path(work) / "tree").mkdir()
        done = subprocess.run(
            ["tar", "-xf", str(packed[0]), "-C", str(Path(work) / "tree"), "--strip-components=1", "--no-same-owner"],
            capture_output=True, text=True, errors="replace", env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
        if done.returncode:
            messages = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise SecondSightError(f"{packed[0].name} does not unpack in {folder}: {messages[0]}")
        check(Path(work) / "tree")
        (Path(work) / "tree").rename(source.tree)
    return source


def own(tree: Path, cache: Path, say: Say) -> KernelSource:
    """The user's *tree*, brought into the *cache* as links (copies on another disk); what has changed since the last time is brought
    again.

    :raises UsageError: it is no Linux source, or one that was built in.
    """
    version = check(tree)
    if (tree / ".config").exists() or (tree / "include/config").exists():
        raise UsageError(
            f"{tree} was built in, and a build elsewhere needs it clean; `make mrproper` there, or give another tree"
        )
    place = tree.resolve()
    folder = cache / "builds" / f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    source = KernelSource(str(tree), version, "", folder)
    source.tree.mkdir(parents=True, exist_ok=True)
    say(f"bringing {tree} into the cache")
    restore(source.tree, folder / "original")
    listing = hashlib.sha256()
    wanted: set[str] = set()
    try:
        for at, folders, files in os.walk(place):
            folders[:] = sorted(name for name in folders if name != ".git")
            here, inside = Path(at), Path(at).relative_to(place)
            (source.tree / inside).mkdir(exist_ok=True)
            wanted.update(str(inside / name) for name in (*folders, *files))
            for name in sorted(files) + [each for each in folders if (here / each).is_symlink()]:
                stat = (here / name).lstat()
                listing.update(f"{inside / name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
                _bring(here / name, source.tree / inside / name)
    except OSError as error:
        raise SecondSightError(f"{tree} cannot be brought into {folder}: {error.strerror or error}") from None
    _prune(source.tree, wanted)
    return msgspec.structs.replace(source, identity=listing.hexdigest())


def _bring(path: Path, target: Path) -> None:
    """*target* becomes *path*: a link to it, or a copy with its time."""
    stat = path.lstat()
    with contextlib.suppress(FileNotFoundError):
        there = target.lstat()
        if (there.st_size, there.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copy2(path, target, follow_symlinks=False)


def _prune(tree: Path, wanted: set[str]) -> None:
    """Remove from *tree* what is not *wanted* (paths in it)."""
    for at, folders, files in os.walk(tree):
        here, inside = Path(at), Path(at).relative_to(tree)
        for name in files:
            if str(inside / name) not in wanted:
                (here / name).unlink()
        for name in list(folders):
            if str(inside / name) not in wanted:
                folders.remove(name)
                shutil.rmtree(here / name, ignore_errors=True)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise SecondSightError where the disk of *folder* has fewer than *needed* bytes free for *what*."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SecondSightError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free; "
            "`secondsight lab drop --builds` removes earlier builds, SECONDSIGHT_CACHE names another folder"
        )
