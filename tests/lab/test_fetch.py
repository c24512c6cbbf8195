"""Kernels from an archive: what comes, what is kept, and what is said where it cannot be had."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.lab import apt, kernels
from secondsight.lab import fetch as fetching
from secondsight.lab.fetch import available, drop, fetch
from support.archive import Mirror, debian, module, needs_apt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return debian(tmp_path_factory.mktemp("mirror")).folder


@pytest.fixture
def mirror(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror of the test's own, that the machine's sources name, and an empty cache in ``tmp_path/cache``."""
    shutil.copytree(whole, tmp_path / "mirror")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "sources.list").write_text(
        f"deb [trusted=yes] file://{tmp_path / 'mirror'} bookworm main\n"
    )
    monkeypatch.setattr(apt, "ETC_APT", tmp_path / "etc")
    monkeypatch.setenv("SECONDSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mirror"


def kept(tmp_path: Path) -> list[str]:
    """What is in the cache's folder of kernels, but for the lock."""
    return sorted(path.name for path in (tmp_path / "cache" / "kernels").iterdir() if path.name != ".lock")


@needs_apt
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(
    ("name", "release", "suites"),
    [
        ("newest", "7.3.4+deb13-amd64", ("trixie-backports",)),
        ("5.10", "5.10.0-46-amd64", ("bullseye",)),
        ("6.12", "6.12.117+deb13-amd64", ("trixie", "trixie-updates")),
        ("6.12=6.12.43-1~bpo12+1", "6.12.43+deb12-amd64", ("bookworm-backports",)),
        ("7.4", "7.4-amd64", ("experimental",)),
    ],
)
def test_a_kernel_comes_from_whichever_suite_has_it(
    name: str, release: str, suites: tuple[str, ...], tmp_path: Path
) -> None:
    said: list[str] = []
    kernel = fetch(name, say=said.append)
    assert kernel.release == release and kernel.vmlinuz.read_text() == release and not kernel.checks
    assert kernel.module("kvm-amd") == module("kvm_amd") and kernel.module("sound") is None
    manifest = kernels.installed()[name]
    assert sorted(manifest.suites) == sorted(suites)
    assert manifest.builtin == ([] if release[0] == "7" else ["ext4", "irqbypass"])
    assert (kernel.vmlinuz.parent / "config").read_text() == "CONFIG_KVM=m\n"
    # How much, how long and where, before anything comes.
    announced_at = next(i for i, line in enumerate(said) if "MB to download" in line)
    assert "are needed meanwhile" in said[announced_at] and said[announced_at + 1].startswith("fetching ")
    assert kept(tmp_path) == [release, "names.json"]
    assert kernels.resolve(name) == kernel == fetch(name, say=said.append)


@needs_apt
@pytest.mark.usefixtures("mirror")
def test_what_has_left_the_lists_comes_from_the_pool_and_is_for_the_kernel_to_check() -> None:
    kernel = fetch("7.0")
    assert kernel.checks and kernel.module("kvm-amd") == module("kvm_amd")
    assert kernels.resolve("7.0").checks


@needs_apt
def test_what_the_mirror_lost_after_the_list_leaves_nothing(mirror: Path, tmp_path: Path) -> None:
    for lost in ("linux-image-5.10", "linux-modules-7.0", "linux-modules-7.3"):
        for deb in mirror.rglob(f"{lost}*.deb"):
            deb.unlink()
        with pytest.raises(
            SecondSightError, match=rf"the mirror no longer has {lost}.*`secondsight lab kernels --available`"
        ):
            fetch(lost.rpartition("-")[2])
        assert kept(tmp_path) == []


@needs_apt
def test_what_is_not_what_the_archive_lists_is_not_kept(mirror: Path, tmp_path: Path) -> None:
    deb = next(mirror.rglob("linux-image-5.10*.deb"))
    data = bytearray(deb.read_bytes())
    data[len(data) // 2] ^= 1
    deb.write_bytes(data)
    with pytest.raises(SecondSightError, match=r"5\.10\.0-46-amd64"):
        fetch("5.10")
    assert kept(tmp_path) == []
    torn = next(mirror.rglob("linux-modules-7.0*.deb"))
    torn.write_bytes(torn.read_bytes()[:400])
    with pytest.raises(SecondSightError, match=r"dpkg-deb could not read it|not a package"):
        fetch("7.0")
    assert kept(tmp_path) == []


@needs_apt
@pytest.mark.usefixtures("mirror")
def test_a_full_disk_is_said_before_and_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(fetching.shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 5 << 20))
        with pytest.raises(
            SecondSightError, match=r"needs 4\d MB in .*, and 5 MB are free; `secondsight lab drop NAME`"
        ):
            fetch("5.10")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(apt.shutil, "copyfileobj", full)
    with pytest.raises(SecondSightError, match=r"cannot be kept in .*: No space left on device; .*lab drop"):
        fetch("5.10")
    assert kept(tmp_path) == []


PARTLY = """\
#!/bin/sh
PATH=/usr/bin:/bin
case "$*" in *" update "*)
  apt-get "$@"
  echo "E: The repository 'http://d.example/debian bullseye Release' does not have a Release file." >&2
  echo "E: Failed to fetch http://d.example/debian/dists/sid/InRelease  Connection timed out" >&2
  exit 100
esac
exec apt-get "$@"
"""


@needs_apt
def test_a_suite_that_did_not_come_is_said_and_the_others_serve(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").write_text(PARTLY)
    (tmp_path / "apt-get").chmod(0o755)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert {offer.version for offer in available(say=said.append)} >= {"6.12.117-1", "7.2.13-1"}
    assert said[1:] == [
        "the mirror has no bullseye",
        "not brought up to date: sid (Failed to fetch http://d.example/debian/dists/sid/InRelease  Connection timed out)",
    ]
    # No network any more: what there was is not offered as if it were there. (Between tries apt waits for seconds.)
    monkeypatch.setattr(apt, "RETRIES", 0)
    (tmp_path / "etc" / "sources.list").write_text("deb http://127.0.0.1:1/debian bookworm main\n")
    with pytest.raises(SecondSightError, match=r"apt-get update failed: .*127\.0\.0\.1"):
        fetch("6.12")
    assert kept(tmp_path) == []


@needs_apt
def test_a_name_that_moves_on_leaves_its_kernel_under_its_version(mirror: Path, tmp_path: Path) -> None:
    fetch("newest")
    fetch("7.3")  # the same kernel: nothing comes twice
    fetch("6.12")
    archive = Mirror(tmp_path / "more")
    archive.kernel("6.12.118+deb13-amd64", "6.12.118-1", "trixie")
    archive.publish()
    (tmp_path / "etc" / "sources.list").write_text(archive.source("trixie"))
    said: list[str] = []
    assert fetch("6.12", refresh=True, say=said.append).version == "6.12.118-1"
    assert any(line.startswith("6.12 was 6.12.117-1, which stays as 6.12.117-1") for line in said)
    assert kernels.resolve("6.12.117").version == "6.12.117-1"
    assert drop("newest") == 0 and kernels.resolve("7.3").version == "7.3.4-1~bpo13+1"
    assert drop("7.3") > 0 and drop("6.12.117-1") > 0
    assert kept(tmp_path) == ["6.12.118+deb13-amd64", "names.json"]
    with pytest.raises(UsageError, match=r"no kernel '7\.3' is here; there are 6\.12$"):
        drop("7.3")


@needs_apt
@pytest.mark.usefixtures("mirror")
def test_the_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def printed_by(*argv: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["lab", *argv])
        assert not end.value.code
        return capsys.readouterr().out

    offers = json.loads(printed_by("kernels", "--available", "--json"))
    assert [offer["version"] for offer in offers][-1] == "7.4~rc7-1~exp1" and len(offers) == 8
    rows = [line.split() for line in printed_by("kernels", "--available").splitlines()]
    assert next(row for row in rows if row[0] == "7.3.4-1~bpo13+1")[-2:] == ["7.3,", "newest"]
    assert printed_by("fetch", "5.10") == "5.10: 5.10.262-1 (5.10.0-46-amd64)\n"
    # What another version of this program called otherwise is listed like the rest.
    names = tmp_path / "cache" / "kernels" / "names.json"
    names.write_text(json.dumps({"5.10": "5.10.0-46-amd64", "daily": "5.10.0-46-amd64", "gone": "6.6.6"}))
    listed = {line.split()[0]: line for line in printed_by("kernels").splitlines()}
    assert listed.keys() == {"kernel", "6.1", "6.12", "newest", "5.10", "daily", "gone"}
    assert "not here" in listed["newest"] and "5.10.262-1" in listed["daily"]
    assert "lab fetch --refresh gone" in listed["gone"]
    assert printed_by("drop", "gone", "daily").endswith(
        "daily: removed; another name stands for its kernel\n"
    )
    assert "MB freed" in printed_by("drop", "5.10")


@needs_apt
@pytest.mark.usefixtures("mirror")
def test_what_a_killed_fetch_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "kernels" / ".fetch-abc"
    left.mkdir(parents=True)
    (left / "half.deb").write_bytes(b"half")
    fetch("5.10")
    assert not left.exists()


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
    with pytest.raises(MissingDependency, match="apt-get is not here"):
        fetch("6.12", cache=tmp_path / "cache")


def test_a_name_without_a_meaning_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no kernel is called 'noise'; a kernel is newest, a series"):
        fetch("noise", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
