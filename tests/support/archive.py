"""A Debian mirror in a folder, for apt as it is: suites, packages that dpkg-deb built, lists without signatures."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from secondsight.lab.apt import SUITES

needs_apt = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("apt-get", "apt-cache", "dpkg-deb")),
    reason="no apt on this machine",
)


def module(name: str) -> bytes:
    return b"\x7fELF" + f"\0name={name}\0depends=\0".encode()


class Mirror:
    """Packages are added, then :meth:`publish` writes the lists; ``folder/pool`` holds what can be downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = folder / "pool/main/l/linux"
        self.pool.mkdir(parents=True)
        self.lists: dict[str, list[str]] = {}

    def package(
        self,
        name: str,
        version: str,
        files: dict[str, bytes],
        depends: str = "",
        suites: tuple[str, ...] = (),
    ) -> Path:
        tree = self.folder / "tree"
        for path, data in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: a <a@example.org>\n"
        control += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN/control").write_text(control + "Description: a kernel\n")
        deb = self.pool / f"{name}_{version}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, deb], check=True, capture_output=True
        )
        shutil.rmtree(tree)
        data = deb.read_bytes()
        stanza = (
            control + f"Installed-Size: 1000\nFilename: {deb.relative_to(self.folder)}\nSize: {len(data)}\n"
        )
        stanza += f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: a kernel\n\n"
        for suite in suites:
            self.lists.setdefault(suite, []).append(stanza)
        return deb

    def kernel(self, release: str, version: str, *suites: str, listed: bool = True) -> None:
        """A kernel in one package, as until 6.18, its modules in /lib and not compressed."""
        self.package(
            f"linux-image-{release}", version, {
                f"boot/vmlinuz-{release}": release.encode(), f"boot/config-{release}": b"CONFIG_KVM=m\n",
                f"lib/modules/{release}/kernel/kvm-amd.ko": module("kvm_amd"),
                f"lib/modules/{release}/kernel/sound.ko": module("sound"),
                f"lib/modules/{release}/modules.builtin": b"kernel/virt/lib/irqbypass.ko\nkernel/fs/ext4.ko\n",
            }, suites=suites,
        )  # fmt: skip

    def split(self, release: str, version: str, *suites: str, listed: bool = True) -> None:
        """A kernel in three packages, as since 6.19; where it is not *listed*, all but the signed kernel left the lists."""
        parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
        self.package(
            f"linux-image-{release}",
            version,
            {},
            ", ".join(f"{part} (= {version})" for part in parts),
            suites,
        )
        place = f"usr/lib/modules/{release}"
        contents = (
            {f"{place}/modules.builtin": b"", f"boot/config-{release}": b"CONFIG_KVM=m\n"},
            {f"boot/vmlinuz-{release}": release.encode()},
            {f"{place}/kernel/kvm-amd.ko.xz": lzma.compress(module("kvm_amd"))},
        )
        for part, files in zip(parts, contents, strict=True):
            self.package(part, version, files, suites=suites if listed or "binary" in part else ())

    def publish(self) -> None:
        for suite in {*SUITES, *self.lists}:
            stanzas = self.lists.get(suite, [])
            place = self.folder / "dists" / suite
            lists = place / "main/binary-amd64"
            lists.mkdir(parents=True, exist_ok=True)
            text = "".join(stanzas).encode()
            (lists / "Packages").write_bytes(text)
            (place / "Release").write_text(
                f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
                f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
                f" {hashlib.sha256(text).hexdigest()} {len(text)} main/binary-amd64/Packages\n"
            )

    def source(self, suite: str = "bookworm") -> str:
        """The line of a machine's sources.list that names this mirror."""
        return f"deb [trusted=yes] file://{self.folder} {suite} main\n"


def debian(folder: Path) -> Mirror:
    """What the archive holds, in small: one of each kind."""
    mirror = Mirror(folder)
    mirror.kernel("5.10.0-46-amd64", "5.10.262-1", "bullseye")
    mirror.kernel("6.12.43+deb12-amd64", "6.12.43-1~bpo12+1", "bookworm-backports")
    mirror.kernel("6.12.95+deb12-amd64", "6.12.95-1~bpo12+1", "bookworm-backports")
    mirror.kernel("6.12.117+deb13-amd64", "6.12.117-1", "trixie", "trixie-updates")
    mirror.kernel("6.12.117+deb13-cloud-amd64", "6.12.118-1", "trixie")  # not for the lab
    mirror.package(
        "linux-image-6.12-amd64",
        "6.12.117-1",
        {},
        "linux-image-6.12.117+deb13-amd64 (= 6.12.117-1)",
        ("trixie",),
    )
    mirror.split("7.0.13+deb13-amd64", "7.0.13-1~bpo13+1", "trixie-backports", listed=False)
    mirror.split("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports")
    mirror.split("7.2.13+deb14-amd64", "7.2.13-1", "sid")
    mirror.split("7.4-amd64", "7.4~rc7-1~exp1", "experimental")
    mirror.publish()
    return mirror
