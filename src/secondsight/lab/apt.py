"""The machine's own apt client, with a state folder of ours: it finds, verifies and downloads, no more.

The sources are derived from the machine's: where it says which mirror serves a Debian suite, and by which
keyring it is signed, the suites that the lab needs are asked of the same mirror. No file of the system is
written.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from secondsight.errors import MissingPart, SecondSightError, UsageError
from secondsight.lab.kernels import NAMES, Package

ETC_APT = Path("/etc/apt")

# Debian's own suites; a mirror that serves one of them serves them all (security and -updates apart).
SUITE = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)(-security)?$"
)


class Source:
    """One apt source: *uri* serves *suite*; *signed_by* is its keyring, or empty for apt's default."""

    def __init__(self, uri: str, suite: str, signed_by: str) -> None:
        self.uri, self.suite, self.signed_by = uri.rstrip("/"), suite, signed_by

    def line(self, suite: str) -> str:
        """The sources.list line that asks this mirror for *suite*."""
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {suite} main"


def machine_sources(etc: Path | None = None) -> list[Source]:
    """Every binary source in ``sources.list``, ``*.list`` (one line each) and ``*.sources`` (deb822)."""
    etc = etc or ETC_APT
    found: list[Source] = []
    parts = sorted((etc / "sources.list.d").glob("*")) if (etc / "sources.list.d").is_dir() else []
    for path in [etc / "sources.list", *parts]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            found += _deb822(text)
        elif path.suffix == ".list":
            found += _one_line(text)
    return found


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        hit = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if hit:
            signed = re.search(r"signed-by=(\S+)", hit[1] or "")
            yield Source(hit[2], hit[3], signed[1] if signed else "")


def _deb822(text: str) -> Iterator[Source]:
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", bare):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and key:
                fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if (
            fields.get("enabled", "yes").lower() in ("no", "false", "0")
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        signed = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                # A key spelt out in the stanza cannot be named in a line: apt's default keyring it is.
                yield Source(uri, suite, signed if signed.startswith("/") else "")


def derive_sources(sources: list[Source]) -> list[str]:
    """Lines for every suite in NAMES, on the mirrors of *sources*. Raises MissingPart if none is Debian's."""
    main: Source | None = None
    security: Source | None = None
    for source in sources:
        hit = SUITE.match(source.suite)
        if hit and hit[1]:
            security = security or source
        elif hit:
            main = main or source
    if main is None:
        raise MissingPart(
            "no Debian mirror in /etc/apt/sources.list or sources.list.d, so no kernel can be fetched; "
            "give a kernel of your own: --kernel /path/vmlinuz --modules DIR"
        )
    suites = dict.fromkeys(suite for group in NAMES.values() for suite in group)
    lines = []
    for suite in suites:
        if suite.endswith("-security"):
            lines += [security.line(suite)] if security else []
        else:
            lines.append(main.line(suite))
    return lines


class Archive:
    """apt with its state in *folder*; the lists are brought up to date once, when first needed."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise MissingPart(
                    f"{program} is not here, so no kernel can be fetched; "
                    "give your own: --kernel /path/vmlinuz --modules DIR"
                )
        self._say, self._fresh = say, False
        lines = derive_sources(machine_sources())
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("\n".join(lines) + "\n")
        (folder / "status").touch()
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",  # the cache is the user's: apt's own user could not write there
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "quiet": "2",
        }
        self._options = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    def kernel_packages(self, suites: tuple[str, ...], series: str, pin: str | None) -> list[Package]:
        """The packages of the newest kernel in *suites*, or of version *pin* of *series*.

        Raises UsageError when the archive has no such version, with those it has.
        """
        self._update()
        if pin is None:
            image, version = self._newest(suites)
        else:
            image, version = self._pinned(series, pin)
        stanza = self._show(image, version)
        # Until 7.x one package holds all; since then linux-image is empty and depends on three that are not.
        parts = re.findall(r"\b(linux-(?:base|binary|modules)-\S+) \(= ([^)]+)\)", stanza["depends"])
        return [self._package(name, number) for name, number in (parts or [(image, version)])]

    def unpack(self, package: Package, work: Path, tree: Path) -> None:
        """Download *package* into *work*, check its sha256, unpack it into *tree*, delete the download."""
        self._say(f"fetching {package.name} {package.version} ({package.size / 1e6:.0f} MB)")
        self._run("apt-get", "download", f"{package.name}={package.version}", cwd=work)
        debs = list(work.glob(f"{package.name}_*.deb"))
        if len(debs) != 1:
            raise SecondSightError(f"apt fetched {len(debs)} files for {package.name}, not one")
        if (got := sha256(debs[0])) != package.sha256:
            raise SecondSightError(
                f"{package.name}: sha256 is {got}, the archive says {package.sha256}; fetch again"
            )
        self._run("dpkg-deb", "-x", str(debs[0]), str(tree))
        debs[0].unlink()

    def _update(self) -> None:
        if not self._fresh:
            self._say("reading Debian's package lists")
            self._run("apt-get", "update", "-o", "APT::Update::Error-Mode=any")
            self._fresh = True

    def _newest(self, suites: tuple[str, ...]) -> tuple[str, str]:
        """The real package, and its version, that the newest ``linux-image-amd64`` of *suites* stands for."""
        for row in self._madison("linux-image-amd64"):
            if row[2] in suites:  # newest first
                depends = self._show("linux-image-amd64", row[1])["depends"]
                hit = re.search(r"\b(linux-image-[0-9]\S*)(?: \(= ([^)]+)\))?", depends)
                if hit:
                    return hit[1], hit[2] or self._madison(hit[1])[0][1]
        raise SecondSightError(f"the mirror has no linux-image-amd64 in {' or '.join(suites)}")

    def _pinned(self, series: str, pin: str) -> tuple[str, str]:
        names = self._run(
            "apt-cache", "search", "--names-only", r"^linux-image-[0-9.]+[-+][^ ]*amd64$"
        ).split("\n")
        images = [
            name for line in names if (name := line.split(" ")[0]) and not re.search(r"-(cloud|rt)-", name)
        ]
        rows = self._madison(*images)
        for name, version, _ in rows:
            if version == pin:
                return name, version
        same = sorted({version for _, version, _ in rows if version.startswith(f"{series}.")})
        raise UsageError(f"the archive has no kernel {pin}; of {series} it has {', '.join(same) or 'none'}")

    def _madison(self, *names: str) -> list[tuple[str, str, str]]:
        """(package, version, suite) for each that the archive has, newest first within a package."""
        rows = []
        for line in self._run("apt-cache", "madison", *names).splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 3 and len(where := cells[2].split()) >= 2:
                rows.append((cells[0], cells[1], where[1].split("/")[0]))
        return rows

    def _show(self, name: str, version: str) -> dict[str, str]:
        text = self._run("apt-cache", "show", f"{name}={version}").split("\n\n")[0]
        pairs = (line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Za-z0-9-]+: ", line))
        return {key.lower(): value for key, value in pairs}

    def _package(self, name: str, version: str) -> Package:
        stanza = self._show(name, version)
        return Package(name, version, stanza["sha256"], int(stanza["size"]), stanza["filename"])

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        options = [] if program == "dpkg-deb" else self._options
        done = subprocess.run(
            [program, *options, *words], cwd=cwd, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("E:")] or lines or ["it said nothing"]
            raise SecondSightError(f"{program} {words[0]} failed: {errors[0].removeprefix('E:').strip()}")
        return done.stdout


def sha256(path: Path) -> str:
    """The checksum of the file *path*, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
