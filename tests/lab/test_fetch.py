"""Kernels from an archive: what the machine's sources name, and what is said where nothing can be had."""

from pathlib import Path

import pytest

from secondsight.errors import MissingPart, SecondSightError, UsageError
from secondsight.lab import apt
from secondsight.lab.fetch import fetch

DEB822 = """\
Types: deb
# a comment
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb deb-src
URIs: https://mirror.example/security/
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: https://off.example/debian
Suites: sid
"""


def test_the_machines_sources_name_the_mirror(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "other.list").write_text(
        "deb [arch=amd64] https://other.example/apt tool main\n"
    )
    lines = apt.derive_sources(apt.machine_sources(tmp_path))
    signed = "[signed-by=/usr/share/keyrings/debian.gpg] "
    assert lines == [
        f"deb {signed}https://mirror.example/debian bookworm main",
        "deb https://mirror.example/security bookworm-security main",
        f"deb {signed}https://mirror.example/debian trixie main",
        f"deb {signed}https://mirror.example/debian sid main",
    ]


ONE_LINE = """\
# deb http://x.example sid main
deb-src http://y.example sid main
deb http://d.example/debian/ trixie main
"""


def test_one_line_sources_and_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sources.list"
    path.write_text(ONE_LINE)
    lines = apt.derive_sources(apt.machine_sources(tmp_path))
    assert lines == [f"deb http://d.example/debian {suite} main" for suite in ("bookworm", "trixie", "sid")]
    path.write_text("deb http://u.example/ubuntu noble main\n")
    with pytest.raises(MissingPart, match="--kernel /path/vmlinuz"):
        apt.derive_sources(apt.machine_sources(tmp_path))


BROKEN = "#!/bin/sh\necho 'W: noise' >&2; echo 'E: No route to the mirror' >&2; exit 100\n"


def test_apts_own_error_is_the_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        (tmp_path / name).write_text(BROKEN)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "sources.list").write_text("deb http://d.example/debian bookworm main\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "ETC_APT", tmp_path / "etc")
    with pytest.raises(SecondSightError, match=r"apt-get update failed: No route to the mirror$"):
        fetch("6.1", cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "kernels" / "names.json").exists()
    monkeypatch.setenv("PATH", str(tmp_path / "etc"))
    with pytest.raises(MissingPart, match="apt-get is not here"):
        fetch("6.12", cache=tmp_path / "cache")


def test_an_unknown_name_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"known are 6\.1"):
        fetch("5.10", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
