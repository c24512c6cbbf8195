"""A kernel from source: what is built once, what is built anew, and what is said where it cannot be.

The source is a small one of the test's: its Makefile knows the targets that Linux has, and makes of mm/huge.c what Linux makes of a kernel.
"""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.lab import apt, kernels
from secondsight.lab import build as building
from secondsight.lab.build import build, default_name, missing_tools, remove_builds
from support.archive import Mirror, needs_apt

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("gcc", "make", "objcopy", "patch", "tar")),
    reason="no compiler, make, binutils, patch or tar on this machine",
)

MAKEFILE = """\
VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =
allnoconfig:
	mkdir -p $(O)/include/config $(O)/arch/x86/boot
	cp $(KCONFIG_ALLCONFIG) $(O)/.config
	echo 7.3.4$(LOCALVERSION) > $(O)/include/config/kernel.release
	@echo "  CONF"
bzImage: $(O)/vmlinux
$(O)/vmlinux: mm/huge.c
	@echo "  CC      mm/huge.o"
	gcc -c -o $(O)/vmlinux mm/huge.c
	cp mm/huge.c $(O)/arch/x86/boot/bzImage
	echo kernel/virtio.ko > $(O)/modules.builtin
	echo built >> $(O)/built
modules:
	echo 'int kvm;' | gcc -g -x c -c -o $(O)/kvm.ko -
	echo 'int sound;' | gcc -g -x c -c -o $(O)/sound.ko -
"""
CHANGE = "--- a/mm/huge.c\n+++ b/mm/huge.c\n@@ -1 +1 @@\n-int huge = 1;\n+int huge = 2;\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECONDSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(building, "missing_tools", list)
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return source(tmp_path / "linux")


def source(folder: Path) -> Path:
    for part in ("mm", "arch/x86"):
        (folder / part).mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "mm/huge.c").write_text("int huge = 1;\n")
    return folder


def patch(tmp_path: Path, text: str = CHANGE, name: str = "0001-count.patch") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def built(cache: Path) -> int:
    """How often the kernel was compiled."""
    return sum(len(path.read_text().split()) for path in cache.glob("builds/*/objects/built"))


def test_what_is_built_is_a_kernel_of_the_cache(tree: Path, cache: Path) -> None:
    said: list[str] = []
    kernel = build(str(tree), say=said.append, jobs=3)
    assert kernel.name == "7.3+lab" and kernel.release.startswith("7.3.4-lab-") and not kernel.checks
    assert (
        kernel.vmlinuz.read_text() == "int huge = 1;\n"
        and "CONFIG_KVM=m" in (kernel.vmlinuz.parent / "config").read_text()
    )
    assert kernel.module("kvm") is not None and kernel.module("sound") is None
    assert kernels.resolve("7.3+lab") == kernel and kernels.resolve(kernel.release).release == kernel.release
    manifest = kernels.installed()["7.3+lab"]
    assert (
        manifest.built == f"{tree} 7.3.4"
        and manifest.builtin == ["virtio"]
        and "modules/kvm.ko" in manifest.files
    )
    # How long it takes is said before it begins.
    resumed_at = next(
        i for i, line in enumerate(said) if "with 3 jobs: how long that takes is not known here yet" in line
    )
    assert "goes on where it stopped" in said[resumed_at] and said[-1].startswith("kept ")
    with pytest.raises(MissingDependency, match=r"lab fetch 7\.3"):
        kernels.resolve("7.3")  # a series is not met by what was built here
    with pytest.raises(MissingDependency, match=r"lab build --name 7.3\+other"):
        kernels.resolve("7.3+other")


def test_the_same_again_is_there_at_once_and_a_patch_builds_what_it_changes(
    tree: Path, tmp_path: Path, cache: Path
) -> None:
    plain = build(str(tree))
    assert build(str(tree), name="7.3+again").release == plain.release and built(cache) == 1
    patched = build(str(tree), [patch(tmp_path)])
    assert (
        patched.name == "7.3+count" and patched.vmlinuz.read_text() == "int huge = 2;\n" and built(cache) == 2
    )
    assert (tree / "mm/huge.c").read_text() == "int huge = 1;\n"  # the user's own tree is never changed
    assert build(str(tree)).vmlinuz == plain.vmlinuz and built(cache) == 2
    (tree / "mm/huge.c").write_text("int huge = 3;\n")
    assert build(str(tree)).vmlinuz.read_text() == "int huge = 3;\n"
    assert kernels.resolve(plain.release).vmlinuz.read_text() == "int huge = 1;\n"  # kept under its own name


def test_a_failed_build_keeps_no_kernel_and_goes_on_after_the_mend(tree: Path, cache: Path) -> None:
    (tree / "mm/huge.c").write_text("int huge\n")
    with pytest.raises(
        SecondSightError, match=r"make modules failed: mm/huge.c:1:.*error: .*; all it said: .*build.log"
    ):
        build(str(tree))
    assert kernels.names_in(cache / "kernels") == {} and not list((cache / "kernels").glob("7*"))
    (tree / "mm/huge.c").write_text("int huge = 4;\n")
    assert build(str(tree)).vmlinuz.read_text() == "int huge = 4;\n"


def test_a_patch_that_does_not_apply_is_said_and_the_next_build_is_whole(tree: Path, tmp_path: Path) -> None:
    bad = patch(tmp_path, CHANGE.replace("= 1", "= 7"), "bad.patch")
    with pytest.raises(SecondSightError, match=r"bad.patch does not apply"):
        build(str(tree), [bad])
    assert build(str(tree)).vmlinuz.read_text() == "int huge = 1;\n"


def test_a_configuration_without_what_the_lab_needs_is_no_kernel(tree: Path) -> None:
    text = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(text.replace("cp $(KCONFIG", "grep -v -e CONFIG_KVM_AMD -e CONFIG_RSEQ $(KCONFIG").replace(
        "ALLCONFIG) $(O)", "ALLCONFIG) > $(O)"))  # fmt: skip
    with pytest.raises(SecondSightError, match="configures without KVM_AMD, which the lab needs"):
        build(str(tree))


def test_no_space_is_said_before_anything_is_built(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    with pytest.raises(SecondSightError, match=r"needs 1.5 GB in .* and 0.0 GB are free.*drop --builds"):
        build(str(tree))
    assert built(cache) == 0


def test_no_source_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for where, why in (("9.9", "no source '9.9'"), (str(tmp_path), "it has no Makefile")):
        with pytest.raises(UsageError, match=why):
            build(where)
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(SystemExit) as left:
        main(["lab", "build", "--source", str(tmp_path)])
    assert left.value.code == 2
    assert "no Linux source: its Makefile says no version" in capsys.readouterr().err


def test_a_tree_that_was_built_in_is_refused(tree: Path) -> None:
    (tree / ".config").write_text("")
    with pytest.raises(UsageError, match="make mrproper"):
        build(str(tree))


@pytest.mark.parametrize("name", ["newest", "7.3", "seven"])
def test_a_name_of_the_archives_is_none_for_a_build(tree: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        build(str(tree), name=name)


def test_a_kernel_is_called_after_its_first_patch() -> None:
    assert default_name("7.3.4", [Path("x/0003-mm: let it.patch"), Path("b")]) == "7.3+mm-let-it"
    assert default_name("6.12.1", []) == "6.12+lab"


def test_missing_tools_are_named_with_their_packages(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(
        shutil, "which", lambda program: None if program in ("flex", "gcc") else f"/bin/{program}"
    )
    assert missing_tools() == [("gcc", "gcc"), ("flex", "flex"), ("gelf.h", "libelf-dev")]
    with pytest.raises(
        MissingDependency, match=r"needs gcc, flex, gelf.h: apt-get install gcc flex libelf-dev$"
    ):
        build(str(tree))


def test_builds_are_removed_and_their_kernels_stay(
    tree: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = build(str(tree))
    assert remove_builds() > 0 and not list(cache.glob("builds/*/")) and kernels.resolve("7.3+lab") == kernel
    assert (tree / "mm/huge.c").exists()
    with pytest.raises(SystemExit):
        main(["lab", "drop"])
    assert "name kernels" in capsys.readouterr().err


@needs_apt
def test_debians_source_is_unpacked_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = source(tmp_path / "linux-source-7.3")
    packed = shutil.make_archive(str(tmp_path / "linux-source-7.3"), "gztar", tmp_path, inside.name)
    mirror = Mirror(tmp_path / "mirror")
    for version, suite in (("7.3.4-1~bpo13+1", "trixie-backports"), ("7.3~rc7-1~exp1", "experimental")):
        mirror.package(
            "linux-source-7.3",
            version,
            {"usr/src/linux-source-7.3.tar.gz": Path(packed).read_bytes()},
            suites=(suite,),
        )
    mirror.publish()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sources.list").write_text(mirror.source())
    monkeypatch.setattr(apt, "ETC_APT", tmp_path / "etc")
    said: list[str] = []
    kernel = build("linux-source-7.3", say=said.append)
    assert (
        kernel.version.startswith("7.3.4-1~bpo13+1+lab.") and kernel.vmlinuz.read_text() == "int huge = 1;\n"
    )
    assert any("MB to download" in line for line in said)
    with pytest.raises(UsageError, match=r"no suite has 'linux-source-9\.9'; it has linux-source-7\.3"):
        build("linux-source-9.9")
    with pytest.raises(UsageError, match=r"no suite has linux-source-7\.3 7\.3\.9-1; it has "):
        build("linux-source-7.3=7.3.9-1")
    # Without the mirror, what is here is taken; with a version nothing is asked at all.
    shutil.rmtree(tmp_path / "mirror")
    said.clear()
    assert build("linux-source-7.3", name="7.3+x", say=said.append).release == kernel.release
    assert any("is here, and taken" in line for line in said)
    said.clear()
    assert build("linux-source-7.3=7.3.4-1~bpo13+1", say=said.append).release == kernel.release and said == []
    shutil.rmtree(cache / "builds")
    with pytest.raises(SecondSightError, match="apt-get update failed"):
        build("linux-source-7.3")


def test_the_configuration_asks_for_what_it_is_held_to() -> None:
    asked = building.CONFIG.read_text()
    assert all(f"\nCONFIG_{option}=" in asked for option in building.NEEDED)
    assert json.dumps(asked)  # plain text


def test_a_whole_build_is_told_by_what_the_last_one_took(tree: Path, tmp_path: Path, cache: Path) -> None:
    build(str(tree))
    assert float((cache / "builds" / "cpu-seconds").read_text()) >= 0
    said: list[str] = []
    build(str(source(tmp_path / "another")), jobs=2, say=said.append)
    assert any(
        "with 2 jobs: about 0 min if nothing else runs, as the last whole build took" in line for line in said
    )
