"""Which mirror the machine's sources name."""

from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import apt

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
        *(f"deb {signed}https://mirror.example/debian {suite} main" for suite in apt.SUITES),
        *(f"deb https://mirror.example/security {suite} main" for suite in apt.SECURITY),
    ]


ONE_LINE = """\
# deb http://x.example sid main
deb-src http://y.example sid main
deb [trusted=yes] http://d.example/debian/ trixie main
"""


def test_one_line_sources_and_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sources.list"
    path.write_text(ONE_LINE)
    lines = apt.derive_sources(apt.machine_sources(tmp_path))
    assert lines == [f"deb [trusted=yes] http://d.example/debian {suite} main" for suite in apt.SUITES]
    path.write_text("deb http://u.example/ubuntu noble main\n")
    with pytest.raises(MissingDependency, match="--kernel /path/vmlinuz"):
        apt.derive_sources(apt.machine_sources(tmp_path))
