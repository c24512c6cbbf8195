"""What the guest boots into: busybox, a kernel's modules, and this very Python with what the agent imports.

    base, once per Python environment      base, once per kernel      overlay, once per run
    /bin/busybox  /usr/bin/python3         /mod/NAME.ko               /init, the agent's files, the batch
    /usr/lib/pythonX.Y (compiled)
    /site (numpy, drgn, msgspec)
    /lib64 (shared libraries)

Three cpio archives laid end to end. The bases are kept in the cache under a name made from what went into
them, so a changed package or kernel makes a new one. They stay uncompressed: under an emulator unpacking
costs more than it saves.
"""

from __future__ import annotations

import ast
import compileall
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from secondsight import atomicfile
from secondsight.errors import MissingDependency
from secondsight.lab import cpio, elf
from secondsight.lab.kernels import Kernel, Say, cache_dir, locked

__all__ = ["PACKAGES", "PYTHON", "build", "overlay", "package_sources", "program", "ready"]

PACKAGES = ("numpy", "drgn", "msgspec")
"""The distributions that the guest's Python can import, besides its standard library."""

MODULES = ("kvm-amd", "kvm-intel", "brd", "zram", "ext4", "qemu_fw_cfg", "virtio_console", "virtio_pci")

PYTHON = {
    "PATH": "/bin:/usr/bin",
    "HOME": "/root",
    "PYTHONHOME": "/usr",
    "PYTHONPATH": "/app:/site",
    "LD_LIBRARY_PATH": "/lib64",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""The environment that Python needs in the guest."""

FORMAT = 7  # part of a base's name: raise it when what is put into one changes

# Parts of the standard library that no agent needs: a third of its size.
STDLIB_SKIP = {
    "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "pydoc_data", "distutils",
    "unittest", "site-packages", "dist-packages", "__pycache__", "venv", "xmlrpc", "wsgiref", "dbm",
    "sqlite3", "msilib",
}  # fmt: skip
# Extension modules that drag in large libraries; hashlib falls back to Python's own hashes. (drgn needs readline.)
DYNLOAD_SKIP = (
    "_tkinter", "_sqlite3", "_dbm", "_gdbm", "_ssl", "_hashlib", "_test",
    "_ctypes_test", "_xxtest", "xx", "nis", "ossaudiodev", "audioop",
)  # fmt: skip
SITE_SKIP = {"tests", "f2py", "_pyinstaller", "include", "__pycache__", "testing", "distutils"}
# Bundled libraries whose functions the guest never calls: debuginfod's network access, with the twenty libraries that
# it drags in. A stand-in that stops the program takes their place. (Not OpenBLAS: numpy calls it while it is imported.)
STAND_INS = ("libcurl",)


def ready() -> None:
    """Raise MissingDependency when busybox or one of PACKAGES is not installed on this machine."""
    _busybox()
    for name in PACKAGES:
        _distribution(name)


def build(kernel: Kernel, cache: Path | None = None, say: Say = lambda text: None) -> list[Path]:
    """The base archives for *kernel*, in their order; built where the cache lacks them.

    :raises MissingDependency: as ``ready``.
    """
    folder = (cache or cache_dir()) / "initramfs"
    return [_python_base(folder, say), module_base(folder, kernel, say)]


def overlay(files: Mapping[str, bytes | Path], *, executable: Iterable[str] = ("/init",)) -> bytes:
    """An archive of *files* (path in the guest → content, or a host file's path) to lay over the bases."""
    out = io.BytesIO()
    writer = cpio.Writer(out)
    runs = set(executable)
    for path, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        writer.file(path, data, 0o755 if path in runs else 0o644)
    writer.close()
    return out.getvalue()


def package_sources(modules: Iterable[str], under: str = "/app") -> dict[str, bytes | Path]:
    """Overlay files that bring *modules* of ours (``secondsight.lab.agent``) and the packages above them.

    A package's name brings its ``__init__`` alone, ``secondsight.live.*`` every module in it and in the packages below it.

    :raises MissingDependency: a module that is not there.
    """
    files: dict[str, bytes | Path] = {}
    for name in modules:
        package, _, last = name.rpartition(".")
        wanted = [name]
        if last == "*":
            home = importlib.util.find_spec(package)
            folders = list(home.submodule_search_locations or []) if home else []
            wanted = [package] + [
                ".".join((package, *p.relative_to(f).with_suffix("").parts))
                for f in folders
                for p in sorted(Path(f).rglob("*.py"))
                if p.stem != "__init__"
            ]
        for one in wanted:
            parts = one.split(".")
            for i in range(1, len(parts) + 1):
                spec = importlib.util.find_spec(".".join(parts[:i]))
                if spec is None or spec.origin is None:
                    raise MissingDependency(
                        f"the guest needs {'.'.join(parts[:i])}, which is not installed here"
                    )
                origin = Path(spec.origin)
                inside = "/".join(parts[:i]) + ("/__init__.py" if origin.name == "__init__.py" else ".py")
                files[f"{under}/{inside}"] = origin
    return files


def program(script: Path, under: str = "/app") -> dict[str, bytes | Path]:
    """Overlay files that bring *script* as ``main.py`` and every module of ours that it imports, those that they import, and so on.

    Every import statement counts, in a function too, but those that only a type checker reads. What is imported by a computed name
    (``python -m``, a plug-in) is not seen.

    :raises MissingDependency: a module that is not there.
    """
    ours: dict[str, Path] = {}
    waiting = [script]
    while waiting:
        for name in sorted(imported_by(waiting.pop()) - ours.keys()):
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise MissingDependency(f"the guest needs {name}, which is not installed here")
            ours[name] = Path(spec.origin)
            waiting.append(ours[name])
    return {f"{under}/main.py": script, **package_sources(ours, under)}


def imported_by(source: Path) -> set[str]:
    """The modules of ours, and the packages above them, that the import statements in *source* name."""
    imported = set()
    waiting: list[ast.AST] = [ast.parse(source.read_bytes(), source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What a package gives out is a module of it, or a name in its __init__.
            package = importlib.util.find_spec(node.module) if _is_ours(node.module) else None
            inside = bool(package and package.submodule_search_locations)
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} if inside else set()
            imported |= {node.module} | {name for name in submodules if importlib.util.find_spec(name)}
        else:
            waiting += ast.iter_child_nodes(node)
    modules = [name.split(".") for name in imported if _is_ours(name)]
    return {".".join(parts[:i]) for parts in modules for i in range(1, len(parts) + 1)}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == __name__.partition(".")[0]


def module_base(folder: Path, kernel: Kernel, say: Say) -> Path:
    modules = {
        name: module if kernel.checks else _unsigned(module)
        for name, module in kernel.load_order(*MODULES).items()
    }
    key = hashlib.sha256(repr(FORMAT).encode())
    for name, module in modules.items():
        key.update(name.encode() + hashlib.sha256(module).digest())
    path = folder / f"modules-{kernel.release.replace('/', '_')}-{key.hexdigest()[:12]}.cpio"
    if path.exists():
        return path
    with locked(folder / ".lock", say), atomicfile.open_atomic(path) as part, part.open("wb") as handle:
        writer = cpio.Writer(handle)
        writer.folder("/mod")
        for name, module in modules.items():
            writer.file(f"/mod/{name}.ko", module)
        writer.close()
    return path


def _unsigned(module: bytes) -> bytes:
    """*module* without the signature at its end, which an emulated CPU checks for a second; the archive's checksum vouches for it.

    The trailer: a ``struct module_signature`` of 12 bytes, its last four the signature's length (big-endian), then a
    marker (include/linux/module_signature.h).
    """
    marker = b"~Module signature appended~\n"
    if not module.endswith(marker):
        return module
    end = len(module) - len(marker) - 12
    return module[: end - int.from_bytes(module[end + 8 : end + 12], "big")]


def _busybox() -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise MissingDependency(
            "busybox is not here and the guest boots into it; install the package busybox-static"
        )
    if elf.needed(Path(busybox).read_bytes()):
        raise MissingDependency(
            f"{busybox} needs shared libraries; the guest needs the package busybox-static"
        )
    return Path(busybox)


def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependency(
            f"the guest needs {name}, which is not installed here; pip install 'secondsight[lab]'"
        ) from None


def _python_base(folder: Path, say: Say) -> Path:
    busybox = _busybox()
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    exe = Path(sys.executable).resolve()
    site = dict(_site_files())
    stamp = hashlib.sha256(repr((FORMAT, sys.version, [_stamp(p) for p in (exe, busybox, stdlib)])).encode())
    for inside, host in sorted(site.items()):
        stamp.update(repr((inside, _stamp(host))).encode())
    path = folder / f"python-{sys.version_info[0]}.{sys.version_info[1]}-{stamp.hexdigest()[:12]}.cpio"
    if path.exists():
        return path
    with locked(folder / ".lock", say):
        if not path.exists():  # the run that was waited for may have built it
            say("building the guest's root from this Python (once)")
            _forget_old(folder)
            _write_python_base(path, exe, stdlib, busybox, site)
    return path


def _forget_old(folder: Path) -> None:
    """Remove archives of a month ago; one that is still wanted is built again."""
    for path in folder.glob("*.cpio"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - 30 * 86400:
                path.unlink()


def _write_python_base(path: Path, exe: Path, stdlib: Path, busybox: Path, site: Mapping[str, Path]) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with tempfile.TemporaryDirectory(prefix=".root-", dir=path.parent) as work:
        root = Path(work)
        _copy_stdlib(stdlib, root / "usr" / sys.platlibdir / version)
        for inside, host in site.items():
            (root / "site" / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(host, root / "site" / inside)
        _thin_out(root / "site")
        # Python reads its pure part from lib whatever platlibdir says.
        if sys.platlibdir != "lib":
            (root / "usr/lib").symlink_to(sys.platlibdir)
        _compile(root)
        libraries = _libraries([exe, *(p for p in root.rglob("*.so*") if p.is_file())], root)
        for name in libraries:
            (root / "lib64").mkdir(exist_ok=True)
            shutil.copy(name, root / "lib64" / Path(name).name)
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(exe, root / "usr/bin/python3")
        with atomicfile.open_atomic(path) as part, part.open("wb") as handle:
            writer = cpio.Writer(handle)
            for name in ("proc", "sys", "dev", "tmp", "run", "root", "bin", "sbin", "mod", "app"):
                writer.folder(name)
            writer.device("/dev/console", 5, 1)
            writer.file("/bin/busybox", busybox.read_bytes(), 0o755)
            writer.link("/bin/sh", "busybox")
            for host in sorted(root.rglob("*")):
                inside = str(host.relative_to(root))
                if host.is_symlink():
                    writer.link(inside, str(host.readlink()))
                elif host.is_file():
                    writer.file(
                        inside, elf.compact(host.read_bytes()), 0o755 if os.access(host, os.X_OK) else 0o644
                    )
            writer.close()


def _site_files() -> Iterator[tuple[str, Path]]:
    """(path under /site, host file) of every file of PACKAGES that the guest can use."""
    for name in PACKAGES:
        dist = _distribution(name)
        listed = [(str(f), Path(str(f.locate()))) for f in dist.files or [] if not str(f).startswith("..")]
        if not listed:  # a distribution's own package may keep no record: take the import package's folder
            spec = importlib.util.find_spec(name)
            for place in (spec.submodule_search_locations or []) if spec else []:
                top = Path(place)
                listed += [(f"{name}/{p.relative_to(top)}", p) for p in top.rglob("*") if p.is_file()]
        for inside, host in listed:
            parts = Path(inside).parts
            if (
                SITE_SKIP.intersection(parts)
                or ".dist-info" in parts[0]
                or host.suffix in (".pyi", ".pxd", ".a", ".h", ".pyc")
            ):
                continue
            yield inside, host


def _copy_stdlib(stdlib: Path, target: Path) -> None:
    def skipped(_: str, names: list[str]) -> list[str]:
        return [
            n for n in names
            if n in STDLIB_SKIP or n.startswith("config-") or n.endswith((".a", ".pyc", ".exe"))
            or (n.endswith(".so") and n.startswith(DYNLOAD_SKIP))
        ]  # fmt: skip

    shutil.copytree(stdlib, target, ignore=skipped, ignore_dangling_symlinks=True)


def _compile(root: Path) -> None:
    """Replace every source by its compiled form: the guest has no time to compile (tracebacks name lines)."""
    for part in ("usr", "site"):
        compileall.compile_dir(
            root / part,
            stripdir=str(root),
            quiet=2,
            legacy=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    for source in root.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def _thin_out(site: Path) -> None:
    """Put stand-ins for STAND_INS among the bundled libraries (``NAME.libs``), and drop those nobody needs then."""
    bundled = {path.name: path for path in site.glob("*.libs/*")}
    replaced = [path for name, path in bundled.items() if name.startswith(STAND_INS)]
    if replaced:
        asked = set().union(*(elf.symbols(path.read_bytes())[1] for path in site.rglob("*.so*")))
        for path in replaced:
            path.write_bytes(elf.stub(path.name, elf.symbols(path.read_bytes())[0] & asked))
    todo = [path for path in site.rglob("*.so*") if path.name not in bundled]
    wanted: set[str] = set()
    while todo:
        for name in elf.needed(todo.pop().read_bytes()):
            if name in bundled and name not in wanted:
                wanted.add(name)
                todo.append(bundled[name])
    for name in bundled.keys() - wanted:
        bundled[name].unlink()


def _libraries(binaries: list[Path], root: Path) -> list[str]:
    """Shared libraries outside *root* that *binaries* load, the loader among them."""
    libraries: dict[str, None] = {}
    try:
        for at in range(0, len(binaries), 50):
            text = subprocess.run(
                ["ldd", *map(str, binaries[at : at + 50])], capture_output=True, text=True
            ).stdout
            for hit in re.finditer(r"^\s+(?:\S+ => )?(/\S+) \(0x", text, re.M):
                if not Path(hit[1]).resolve().is_relative_to(root):
                    libraries[hit[1]] = None
    except FileNotFoundError:
        raise MissingDependency(
            "ldd is not here, and it finds the shared libraries for the guest; install libc-bin"
        ) from None
    return list(libraries)


def _stamp(path: Path) -> tuple[str, int, int]:
    facts = path.stat()
    return str(path), facts.st_size, facts.st_mtime_ns
