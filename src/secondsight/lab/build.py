"""A kernel for the lab, built from source: small, under a configuration of ours (``build.config``), with patches or without.

    source ──▶ builds/NAME/source ── patches ──▶ make O=builds/NAME/objects ──▶ kernels/RELEASE (vmlinuz, config, modules, manifest)

The objects stay: a build that was interrupted goes on where it stopped, and a patch costs what it changes. Sources, objects and kernel
are kept apart, so a build that fails leaves no kernel. Its release says what it is made of: ``7.3.4-lab-1f2e3d4c``, where the last
part is a hash of source, patches, configuration and compiler; the same again is there at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.lab import patches as patching
from secondsight.lab import sources
from secondsight.lab.apt import sha256
from secondsight.lab.fetch import SCHEMA, give_name, write
from secondsight.lab.kernels import MODULES, Kernel, Manifest, Say, cache_dir, cached, locked, names_in
from secondsight.lab.offers import NEWEST, is_series, series_of, valid

__all__ = ["CONFIG", "build", "default_name", "missing_tools", "remove_builds"]

CONFIG = Path(__file__).with_name("build.config")
"""The options over ``make allnoconfig``."""

_TOOLS = (  # what is run, or read, and Debian's package of it
    ("gcc", "gcc"), ("ld", "binutils"), ("make", "make"), ("bc", "bc"), ("flex", "flex"), ("bison", "bison"), ("xz", "xz-utils"),
    ("pahole", "dwarves"), ("patch", "patch"), ("gelf.h", "libelf-dev"),
)  # fmt: skip
NEEDED = (
    "64BIT", "KVM", "KVM_AMD", "KVM_INTEL", "TRANSPARENT_HUGEPAGE", "KPROBE_EVENTS", "BLK_DEV_RAM", "SERIAL_8250_CONSOLE",
    "DEVTMPFS", "BLK_DEV_INITRD", "PROC_PAGE_MONITOR", "SWAP", "DEBUG_INFO_BTF",
)  # fmt: skip
_OBJECTS = 1_500_000_000  # bytes; 7.3's are 1.0e9


def default_name(version: str, patches: Sequence[Path]) -> str:
    """``7.3+lab``, or ``7.3+`` and the first patch's name without its number."""
    word = re.sub(r"^\d+-", "", patches[0].stem) if patches else "lab"
    return f"{series_of(version)}+{re.sub(r'[^A-Za-z0-9.+~-]+', '-', word).strip('-') or 'patch'}"


def build(
    source: str, patches: Sequence[Path] = (), *, name: str | None = None, jobs: int | None = None, cache: Path | None = None,
    say: Say = lambda text: None,
) -> Kernel:  # fmt: skip
    """Build *source* (``linux-source-7.3``, with ``=VERSION`` for one version, or a folder) with *patches* applied in order; at once
    where it is here.

    It is called *name* in the cache (see :func:`default_name`) and takes *jobs* processes (default: one a CPU). *say* is told how long
    it will take before it begins.

    :raises UsageError: the source is none, or the name could mean a kernel of the archive.
    :raises InputError: a patch is none.
    :raises MissingDependency: build tools are missing.
    :raises SecondSightError: a patch does not apply, the build fails, the network or the disk does.
    """
    cache = cache or cache_dir()
    if name is not None and (name == NEWEST or is_series(name) or not valid(name)):
        raise UsageError(f"a kernel that is built cannot be called {name!r}; 7.3+NAME can")
    tools = missing_tools()
    if tools:
        raise MissingDependency(
            f"building a kernel needs {', '.join(what for what, _ in tools)}: apt-get install {' '.join(package for _, package in tools)}"
        )
    for patch in patches:
        patching.touched(patch)
    # Two runs take turns: they would build in one folder.
    with locked(cache / "builds" / ".lock", say):
        kernel_source = (
            sources.own(Path(source), cache, say)
            if _is_folder(source)
            else sources.debian(source, cache, say)
        )
        series = sources.check(kernel_source.tree)
        release = f"{re.match(r'[0-9.]+', series)[0]}-lab-{_key(kernel_source, patches)}"  # type: ignore[index]
        called = name or default_name(series, patches)
        folder = cache / "kernels" / release
        if not (folder / "manifest.json").exists():
            _make(kernel_source, patches, release, jobs or os.cpu_count() or 1, say)
            _keep(kernel_source, patches, release, folder, say)
        with locked(cache / "kernels" / ".lock", say):
            give_name(folder.parent, names_in(folder.parent), called, release, say)
        return cached(called, folder)


def _is_folder(source: str) -> bool:
    """Whether *source* means a folder.

    :raises UsageError: it means nothing.
    """
    if re.fullmatch(r"linux-source-\d+\.\d+(=\S+)?", source):
        return False
    if Path(source).is_dir():
        return True
    raise UsageError(
        f"no source {source!r}: it is a package (linux-source-7.3, linux-source-7.3=VERSION) or a folder with a kernel's source"
    )


def missing_tools() -> list[tuple[str, str]]:
    """What a build needs and this machine lacks: the program or header, and Debian's package of it."""
    return [(what, package) for what, package in _TOOLS if not _is_here(what)]


def _is_here(what: str) -> bool:
    if not what.endswith(".h"):
        return shutil.which(what) is not None
    if shutil.which("gcc") is None:
        return False
    preprocessed = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"], input=f"#include <{what}>\n", capture_output=True, text=True
    )
    return preprocessed.returncode == 0


def _key(source: sources.KernelSource, patches: Sequence[Path]) -> str:
    """A hash of everything that decides what is built."""
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    parts = [source.identity, compiler, sha256(CONFIG), *(sha256(patch) for patch in patches)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _make(source: sources.KernelSource, patches: Sequence[Path], release: str, jobs: int, say: Say) -> None:
    """Patch the tree, configure, compile; the objects are in ``source.folder/objects``."""
    objects, log = source.folder / "objects", source.folder / "build.log"
    begun, whole = (objects / "vmlinux").exists(), not objects.exists()
    if not begun:
        sources.require_space(source.folder, _OBJECTS, f"building {release}")
    objects.mkdir(exist_ok=True)
    _patch(source, patches)
    log.write_text("")
    settings = [f"O={objects}", "ARCH=x86_64", f"LOCALVERSION=-lab-{release.rpartition('-')[2]}"]
    _run(source.tree, [*settings, "allnoconfig"], log, say)
    lost = _unset(objects / ".config")
    if needed := [option for option in lost if option in NEEDED]:
        raise SecondSightError(
            f"{source.name} configures without {', '.join(needed)}, which the lab needs (its Kconfig files tell what it depends on)"
        )
    if lost:
        say(f"{source.version} has no {', '.join(lost)}: built without")
    timed = source.folder.parent / "cpu-seconds"
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    say(
        f"building {release} with {jobs} jobs: "
        + (
            "what has changed since the last build"
            if begun
            else f"about {float(timed.read_text()) / jobs / 60:.0f} min if nothing else runs, as the last whole build took"
            if timed.exists()
            else "how long that takes is not known here yet"
        )
        + f"; interrupted, it goes on where it stopped ({log})"
    )
    _run(source.tree, [*settings, f"-j{jobs}", "bzImage", "modules"], log, say)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A build that went on tells nothing about a whole one.
    if whole:
        write(timed, f"{spent:.0f}\n".encode())
    say(f"built {release}: {(time.monotonic() - since) / 60:.1f} min, {spent / 60:.1f} min of CPU time")


def _patch(source: sources.KernelSource, patches: Sequence[Path]) -> None:
    """Let the tree hold *patches* and no others; files that stay as they are keep their times."""
    kept = source.folder / "original"
    wanted = [sha256(patch) for patch in patches]
    applied = kept / "patches.json"
    if applied.exists() and msgspec.json.decode(applied.read_bytes()) == wanted:
        return
    patching.restore(source.tree, kept)
    patching.apply(patches, source.tree, kept)
    if patches:
        write(applied, msgspec.json.encode(wanted))


def _unset(config: Path) -> list[str]:
    """The options of CONFIG that *config* does not have as asked."""
    have = set(config.read_text().splitlines())
    asked = [line.strip() for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_")]
    return [line.removeprefix("CONFIG_").partition("=")[0] for line in asked if line not in have]


def _run(tree: Path, words: list[str], log: Path, say: Say) -> None:
    """make in *tree*; what it prints goes to *log*.

    :raises SecondSightError: make failed; it has the first error.
    """
    fixed = {
        "KCONFIG_ALLCONFIG": str(CONFIG), "KBUILD_BUILD_USER": "lab", "KBUILD_BUILD_HOST": "lab",
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970", "LC_ALL": "C",
    }  # fmt: skip
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MFLAGS", "CROSS_COMPILE", "KBUILD_OUTPUT")
    }
    compiled, last_said = 0, time.monotonic()
    with log.open("a") as out, subprocess.Popen(
        ["make", *words], cwd=tree, env=clean | fixed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                compiled += line.startswith(("  CC ", "  AS "))
                if time.monotonic() - last_said > 60:
                    out.flush()
                    say(f"{compiled} files compiled")
                    last_said = time.monotonic()
        except BaseException:
            # Only a Ctrl-C on the terminal reaches make by itself; it ends its jobs.
            process.terminate()
            raise
    if process.returncode:
        raise SecondSightError(
            f"make {words[-1]} failed: {_why(log.read_text(errors='replace'))}; all it said: {log}"
        )


def _why(text: str) -> str:
    """The line of make's output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (
        r"No space left on device",
        r"\b(?:fatal )?error:",
        r"undefined reference",
        r"not found|No such file",
        r"\*\*\* ",
    ):
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else "it said nothing"


def _keep(
    source: sources.KernelSource, patches: Sequence[Path], release: str, folder: Path, say: Say
) -> None:
    """What was built, into the cache's *folder* for it."""
    objects = source.folder / "objects"
    says = (objects / "include/config/kernel.release").read_text().strip()
    if says != release:
        raise SecondSightError(
            f"the source calls what it builds {says}, not {release}; it must have no localversion file"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder.parent) as work:
        kernel = Path(work) / "kernel"
        (kernel / "modules").mkdir(parents=True)
        shutil.copy(objects / "arch/x86/boot/bzImage", kernel / "vmlinuz")
        shutil.copy(objects / ".config", kernel / "config")
        wanted = {name.replace("-", "_") for name in MODULES}
        for path in sorted(objects.rglob("*.ko")):
            if path.stem.replace("-", "_") in wanted:
                stripped = kernel / "modules" / path.name
                subprocess.run(
                    ["objcopy", "--strip-debug", str(path), str(stripped)], check=True, capture_output=True
                )
        inside = {
            Path(line).stem.replace("-", "_") for line in (objects / "modules.builtin").read_text().split()
        }
        files = {str(p.relative_to(kernel)): sha256(p) for p in sorted(kernel.rglob("*")) if p.is_file()}
        what = " + ".join([f"{source.name} {source.version}", *(patch.name for patch in patches)])
        version = f"{source.version}+lab.{release.rpartition('-')[2]}"
        manifest = Manifest(
            SCHEMA, release, version, [], files, sorted(wanted & inside), ("built here",), what
        )
        write(kernel / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
        shutil.rmtree(folder, ignore_errors=True)
        kernel.rename(folder)
    say(f"kept {release}: vmlinuz and {sum(name.endswith('.ko') for name in files)} modules")


def remove_builds(cache: Path | None = None) -> int:
    """Remove every source and its objects from the *cache*; the bytes that became free. The kernels that were built stay."""
    folder = (cache or cache_dir()) / "builds"
    freed = 0
    with locked(folder / ".lock"):
        for path in folder.iterdir():
            if path.is_dir():
                # Links to a tree of the user's free nothing.
                freed += sum(s.st_size for p in path.rglob("*") if (s := p.lstat()).st_nlink == 1)
                shutil.rmtree(path)
    return freed
