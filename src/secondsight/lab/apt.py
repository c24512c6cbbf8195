"""The machine's own apt client, with a state folder of ours: it lists, verifies and downloads, no more.

The sources are derived from the machine's: where it says which mirror serves a Debian suite, and by which
keyring it is signed, the suites that have kernels are asked of the same mirror. No file of the system is
written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.lab.offers import Offer, Package, is_candidate, version_key

ETC_APT = Path("/etc/apt")

SUITES = (
    "bullseye", "bullseye-updates", "bookworm", "bookworm-updates", "bookworm-backports",
    "trixie", "trixie-updates", "trixie-backports", "sid", "experimental",
)  # fmt: skip
"""Debian's suites that have kernels; a mirror that serves one of them serves them all."""
SECURITY = ("bullseye-security", "bookworm-security", "trixie-security")
"""Those that have a mirror of their own."""

SUITE = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable|experimental)(-security)?$"
)
RETRIES = 3  # of a download that failed; apt waits longer before each
_HELPER = "/usr/lib/apt/apt-helper"
_SPEED = 5e6  # bytes a second, until a download was timed


class AptSource:
    """One apt source: *uri* serves *suite*; *signed_by* is its keyring, or empty for apt's default; *trusted*: asked without one."""

    def __init__(self, uri: str, suite: str, signed_by: str, trusted: bool = False) -> None:
        self.uri, self.suite, self.signed_by, self.trusted = uri.rstrip("/"), suite, signed_by, trusted

    def line(self, suite: str) -> str:
        """The sources.list line that asks this mirror for *suite*."""
        options = [f"signed-by={self.signed_by}"] if self.signed_by else []
        options += ["trusted=yes"] if self.trusted else []
        option = f"[{' '.join(options)}] " if options else ""
        return f"deb {option}{self.uri} {suite} main"


def machine_sources(etc: Path | None = None) -> list[AptSource]:
    """Every binary source in ``sources.list``, ``*.list`` (one line each) and ``*.sources`` (deb822)."""
    etc = etc or ETC_APT
    sources: list[AptSource] = []
    parts = sorted((etc / "sources.list.d").glob("*")) if (etc / "sources.list.d").is_dir() else []
    for path in [etc / "sources.list", *parts]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            sources += _deb822(text)
        elif path.suffix == ".list":
            sources += _one_line(text)
    return sources


def _one_line(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        hit = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if hit:
            signed = re.search(r"signed-by=(\S+)", hit[1] or "")
            yield AptSource(
                hit[2], hit[3], signed[1] if signed else "", "trusted=yes" in (hit[1] or "").split()
            )


def _deb822(text: str) -> Iterator[AptSource]:
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
                trusted = fields.get("trusted", "").lower() == "yes"
                yield AptSource(uri, suite, signed if signed.startswith("/") else "", trusted)


def derive_sources(sources: list[AptSource]) -> list[str]:
    """Lines for SUITES, and for SECURITY where the machine has a mirror of those.

    :raises MissingDependency: no source is Debian's.
    """
    main: AptSource | None = None
    security: AptSource | None = None
    for source in sources:
        hit = SUITE.match(source.suite)
        if hit and hit[1]:
            security = security or source
        elif hit:
            main = main or source
    if main is None:
        raise MissingDependency(
            "no Debian mirror in /etc/apt/sources.list or sources.list.d, so no kernel can be fetched; "
            "give a kernel of your own: --kernel /path/vmlinuz --modules DIR"
        )
    return [main.line(suite) for suite in SUITES] + ([security.line(s) for s in SECURITY] if security else [])


class Archive:
    """apt with its state in *folder*; the lists are brought up to date once, when first needed."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise MissingDependency(
                    f"{program} is not here, so no kernel can be fetched; "
                    "give your own: --kernel /path/vmlinuz --modules DIR"
                )
        self._say, self._fresh = say, False
        self._lines = derive_sources(machine_sources())
        self._mirror = self._lines[0].split()[-3]
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("\n".join(self._lines) + "\n")
        (folder / "status").touch()
        self._timed = folder / "speed"
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # containers turn it off, and each question reads all lists anew
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",  # the cache is the user's: apt's own user could not write there
            "Acquire::Languages": "none",
            "Acquire::Retries": str(RETRIES),
            "quiet": "2",
        }
        self._options = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    @property
    def speed(self) -> float:
        """Bytes a second that the last download came at; a guess before the first."""
        try:
            return float(self._timed.read_text())
        except (OSError, ValueError):
            return _SPEED

    def offers(self) -> list[Offer]:
        """Every kernel for amd64 that the mirror has in some suite; no cloud, no real-time kernels.

        :raises SecondSightError: no suite can be read.
        """
        self._update()
        listing = self._run(
            "apt-cache",
            "search",
            "--names-only",
            r"^linux-(image|base|binary|modules)-[0-9.]+([-+][^ ]*)?-amd64$",
        )
        names = [
            name
            for line in listing.splitlines()
            if not re.search(r"-(cloud|rt)-", name := line.split(" ")[0])
        ]
        if not names:
            return []
        suites: dict[tuple[str, str], list[str]] = {}
        for line in self._run("apt-cache", "madison", *names).splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 3 and len(where := cells[2].split()) >= 2:
                suites.setdefault((cells[0], cells[1]), []).append(where[1].split("/")[0])
        stanzas = list(_stanzas(self._run("apt-cache", "show", *names)))
        packages = {(s["package"], s["version"]): _package(s) for s in stanzas}
        offers: dict[tuple[str, str], Offer] = {}
        for stanza in stanzas:
            key = stanza["package"], stanza["version"]
            depends = stanza.get("depends", "")
            # A name without the ABI's number depends on the kernel that it stands for.
            if not key[0].startswith("linux-image-") or re.search(r"\blinux-image-[0-9]", depends):
                continue
            # Until 6.18 one package holds all; since then linux-image is empty and depends on three that are not.
            parts = re.findall(r"\b(linux-(?:base|binary|modules)-\S+) \(= ([^)]+)\)", depends)
            whole = not any(name.startswith("linux-modules-") for name, _ in parts)
            held = (
                [key]
                if whole
                else [part for part in parts if part in packages or not part[0].startswith("linux-binary-")]
            )
            found_in = tuple(packages.get(part) or _unlisted(*part) for part in held)
            offers[key] = Offer(
                key[1], key[0].removeprefix("linux-image-"), tuple(suites.get(key, ())), found_in
            )
        return list(offers.values())

    def source(self, name: str) -> Package:
        """The package *name*, ``linux-source-7.3`` or with its version (``linux-source-7.3=7.3.4-1~bpo13+1``); else the newest release
        of it.

        :raises UsageError: no suite has it; it names what there is.
        :raises SecondSightError: none can be read.
        """
        self._update()
        called, _, version = name.partition("=")
        names = self._run("apt-cache", "search", "--names-only", r"^linux-source-[0-9.]+$").splitlines()
        there = sorted((line.split(" ")[0] for line in names), key=version_key)
        if called not in there:
            raise UsageError(
                f"no suite has {called!r}; it has {', '.join(there) or 'no kernel source at all'}"
            )
        stanzas = _stanzas(self._run("apt-cache", "show", called))
        packages = {s["version"]: _package(s) for s in stanzas if s["package"] == called}
        if version and version not in packages:
            raise UsageError(f"no suite has {called} {version}; it has {', '.join(packages)}")
        released = [each for each in packages if not is_candidate(each)]
        return packages[version or max(released or packages, key=version_key)]

    def unpack(self, package: Package, work: Path, tree: Path, wanted: Callable[[str], bool]) -> None:
        """Download *package* into *work*, check its sha256, put the files that are *wanted* (by their path) into *tree*.

        One that is not listed comes from the mirror's pool without a checksum: its modules are for the kernel itself to check.

        :raises SecondSightError: the mirror has lost it, or what came is not what the archive lists.
        """
        self._say(f"fetching {package.name} {package.version} ({package.size / 1e6:.0f} MB)")
        since = time.monotonic()
        try:
            if package.listed:
                self._run("apt-get", "download", f"{package.name}={package.version}", cwd=work)
            else:
                place = f"{self._mirror}/{package.filename}"
                self._run(_HELPER, "download-file", place, str(work / Path(package.filename).name))
        except SecondSightError as error:
            if re.search(r"404|Not Found|File not found|Can't find a source|was not found", str(error)):
                raise SecondSightError(
                    f"the mirror no longer has {package.name} {package.version}; "
                    "`secondsight lab kernels --available` lists what it has now"
                ) from None
            raise
        if (took := time.monotonic() - since) > 0.5:
            self._timed.write_text(f"{package.size / took:.0f}\n")
        debs = list(work.glob(f"{package.name}_*.deb"))
        if len(debs) != 1:
            raise SecondSightError(f"apt fetched {len(debs)} files for {package.name}, not one")
        if package.listed and (got := sha256(debs[0])) != package.sha256:
            raise SecondSightError(
                f"{package.name}: sha256 is {got}, the archive says {package.sha256}; fetch again"
            )
        _extract(debs[0], tree, wanted)
        debs[0].unlink()

    def _update(self) -> None:
        """Bring the lists up to date. A suite that the mirror has not is left out; one that did not come is as it was before."""
        if self._fresh:
            return
        self._say("reading Debian's package lists")
        asked = {line.split()[-2] for line in self._lines}
        done = self._start("apt-get", "update", "-o", "APT::Update::Error-Mode=any")
        self._fresh = True
        if not done.returncode:
            return
        errors = [line[2:].strip() for line in done.stderr.splitlines() if line.startswith("E:")]
        absent = set(
            re.findall(r"The repository '\S+ (\S+) (?:In)?Release' does not have a Release file", done.stderr)
        )
        failed = set(re.findall(r"/dists/([a-z]+(?:-[a-z]+)?)/", "\n".join(errors))) | absent
        why = errors[0] if errors else "it said nothing"
        if not failed or failed >= asked:
            raise SecondSightError(f"apt-get update failed: {why}")
        if absent:
            self._say(f"the mirror has no {', '.join(sorted(absent))}")
        if failed - absent:
            why = next((error for error in errors if "/dists/" in error), why)
            self._say(f"not brought up to date: {', '.join(sorted(failed - absent))} ({why})")

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        done = self._start(program, *words, cwd=cwd)
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("E:")] or lines or ["it said nothing"]
            raise SecondSightError(f"{program} {words[0]} failed: {errors[0].removeprefix('E:').strip()}")
        return done.stdout

    def _start(self, program: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        # What it says is read, so it says it in one language.
        return subprocess.run(
            [program, *self._options, *words], cwd=cwd, env=os.environ | {"LC_ALL": "C.UTF-8"},
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields of each stanza that apt-cache shows, by their names in small letters."""
    for stanza in text.split("\n\n"):
        pairs = (line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Za-z0-9-]+: ", line))
        fields = {key.lower(): value for key, value in pairs}
        if "package" in fields:
            yield fields


def _package(stanza: dict[str, str]) -> Package:
    unpacked = int(stanza.get("installed-size", "0")) << 10
    return Package(
        stanza["package"],
        stanza["version"],
        stanza["sha256"],
        int(stanza["size"]),
        stanza["filename"],
        unpacked,
    )


def _unlisted(name: str, version: str) -> Package:
    """A package of the source ``linux`` that the lists have no more, where the pool keeps it."""
    place = f"pool/main/l/linux/{name}_{version.rpartition(':')[2]}_amd64.deb"
    modules = name.startswith("linux-modules-")
    return Package(name, version, "", 160_000_000 if modules else 1_200_000, place, listed=False)


def _extract(deb: Path, tree: Path, wanted: Callable[[str], bool]) -> None:
    """The files of the package *deb* that are *wanted*, by their path without a leading slash, into *tree*."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    path = member.name.removeprefix("./")
                    content = archive.extractfile(member) if member.isfile() and wanted(path) else None
                    if content is None or ".." in Path(path).parts:
                        continue
                    (tree / path).parent.mkdir(parents=True, exist_ok=True)
                    with (tree / path).open("wb") as out:
                        shutil.copyfileobj(content, out, 1 << 20)
            process.stdout.read()
        except tarfile.TarError as error:
            raise SecondSightError(f"{deb.name}: not a package that dpkg-deb can read ({error})") from None
    if process.returncode:
        raise SecondSightError(f"{deb.name}: dpkg-deb could not read it (status {process.returncode})")


def sha256(path: Path) -> str:
    """The checksum of the file *path*, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
