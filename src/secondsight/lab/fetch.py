"""A kernel from Debian's archive into the cache: whole or not at all, one run at a time.

apt ──▶ packages, unpacked in a folder beside the cache ──▶ vmlinuz, config, modules, manifest.json ──▶ kernels/RELEASE
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec

from secondsight import output
from secondsight.errors import SecondSightError, UsageError
from secondsight.lab.apt import Archive, sha256
from secondsight.lab.kernels import (
    MODULES,
    NAMES,
    Kernel,
    Manifest,
    Package,
    Say,
    cache_dir,
    cached,
    locked,
    names_in,
)


def fetch(
    name: str, *, cache: Path | None = None, refresh: bool = False, say: Say = lambda text: None
) -> Kernel:
    """Bring kernel *name* (one of NAMES, or a pin) into the cache; at once if it is there and not *refresh*.

    The kernel appears whole or not at all; two runs wait for each other. *say* is told what is being done.
    Raises UsageError for an unknown name, MissingPart without apt or a Debian source, SecondSightError when
    apt fails.
    """
    base, _, pin = name.partition("=")
    if base not in NAMES:
        raise UsageError(
            f"no kernel is called {name!r}; known are {', '.join(NAMES)}, and pins such as 6.1=6.1.170-3"
        )
    cache = cache or cache_dir()
    folder = cache / "kernels"
    with locked(folder / ".lock", say):
        names = names_in(folder)
        if name in names and not refresh:
            return cached(name, folder / names[name])
        archive = Archive(cache / "apt", say)
        packages = archive.kernel_packages(NAMES[base], base, pin or None)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work:
            release = _unpack(Path(work), archive, packages, say)
            final = folder / release
            if final.exists():
                shutil.rmtree(final)
            (Path(work) / "kernel").rename(final)
        names[name] = release
        _write(folder / "names.json", msgspec.json.format(msgspec.json.encode(names)))
        return cached(name, final)


def _unpack(work: Path, archive: Archive, packages: list[Package], say: Say) -> str:
    """Download *packages* and put what is kept of them in ``work/kernel``; returns the kernel's release."""
    tree = work / "tree"
    for package in packages:
        archive.unpack(package, work, tree)
    images = sorted(tree.rglob("vmlinuz*"))
    if not images:
        raise SecondSightError(
            f"{packages[0].name}: no vmlinuz in the package; the archive's layout has changed"
        )
    found = [path.parent for path in tree.glob("**/lib/modules/*/kernel")]
    if not found:
        raise SecondSightError(
            f"{packages[0].name}: no modules in the packages; the archive's layout has changed"
        )
    modules, release = found[0], found[0].name
    kernel = work / "kernel"
    (kernel / "modules").mkdir(parents=True)
    shutil.copy(images[0], kernel / "vmlinuz")
    for config in [*tree.rglob(f"config-{release}"), modules / "config"]:
        if config.is_file():
            shutil.copy(config, kernel / "config")
    wanted = {name.replace("-", "_") for name in MODULES}
    for path in modules.rglob("*.ko*"):
        if path.name.split(".ko")[0].replace("-", "_") in wanted:
            shutil.copy(path, kernel / "modules")
    lists = [path.read_text() for path in tree.rglob("modules.builtin")]
    inside = {Path(line).stem.replace("-", "_") for text in lists for line in text.split()}
    files = {str(p.relative_to(kernel)): sha256(p) for p in sorted(kernel.rglob("*")) if p.is_file()}
    manifest = Manifest(1, release, packages[0].version, packages, files, sorted(wanted & inside))
    _write(kernel / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
    say(f"kept {release}: vmlinuz and {sum('.ko' in name for name in files)} modules")
    return release


def _write(path: Path, data: bytes) -> None:
    with output.whole(path) as part:
        part.write_bytes(data)
