"""Memory cgroups of version 1, 2 and both."""

from secondsight.host.charges import Charged, Groups, charged, memory_path

V1 = "9:name=systemd:/\n4:memory:/a/b\n1:cpu:/\n0::/x\n"
V2 = "0::/user.slice/x\n"


def test_the_path_that_memory_is_charged_to():
    assert memory_path(V1) == "/a/b"
    assert memory_path(V2) == "/user.slice/x"
    assert memory_path("5:cpu,memory:/c\n0::/x\n") == "/c"
    assert memory_path("1:cpu:/\n") == ""
    assert memory_path("0::/with:colon\n") == "/with:colon"


def test_version_1_counts_the_group_itself(tmp_path):
    (tmp_path / "memory.stat").write_text("cache 9\nrss 100\nrss_huge 40\nmapped_file 7\ntotal_rss 999\n")
    assert charged(tmp_path, 1) == Charged(100, 40, 7)
    assert charged(tmp_path, 1).mapped == 107


def test_version_2_takes_the_children_off(tmp_path):
    (tmp_path / "memory.stat").write_text("anon 100\nfile 50\nfile_mapped 20\nanon_thp 60\n")
    for name, anon in (("a", 30), ("b", 25)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.stat").write_text(f"anon {anon}\nfile_mapped 5\nanon_thp 10\n")
    (tmp_path / "no group").mkdir()
    assert charged(tmp_path, 2) == Charged(45, 40, 10)


def test_what_is_not_there_is_unknown(tmp_path):
    assert charged(tmp_path / "gone", 2) is None
    groups = Groups("")
    assert groups.charged(V1) is None
    assert groups.headroom(V1) is None


def mounted(tmp_path, version):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
    return group, f"30 1 0:9 / {tmp_path} rw - {kind}\n"


def test_headroom_is_the_tightest_of_the_ancestors(tmp_path):
    group, mounts = mounted(tmp_path, 2)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    for folder, limit, used in ((group, "max", 5), (group.parent, "1000", 400)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 100\n")
    assert Groups(mounts).headroom("0::/a/b\n") == (650, "/a")


def test_version_1_headroom(tmp_path):
    group, mounts = mounted(tmp_path, 1)
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("100\n")
    (group / "memory.stat").write_text("rss 70\nmapped_file 9\ntotal_inactive_file 20\n")
    groups = Groups(mounts)
    assert groups.headroom("3:memory:/a/b\n0::/\n") == (910, "/a/b")
    assert groups.charged("3:memory:/a/b\n0::/\n") == Charged(70, 0, 9)


def test_hybrid_by_whichever_has_the_memory_controller(tmp_path):
    """Both hierarchies are mounted and each has a group of the same path: once memory is v1's, once v2's."""
    one, first = mounted(tmp_path / "memory", 1)
    two, second = mounted(tmp_path / "unified", 2)
    (one / "memory.limit_in_bytes").write_text("1000\n")
    (one / "memory.usage_in_bytes").write_text("100\n")
    (one / "memory.stat").write_text("rss 70\nmapped_file 9\ntotal_inactive_file 20\n")
    groups = Groups(first + second)
    text = "9:name=systemd:/a/b\n3:memory:/a/b\n0::/a/b\n"
    assert groups.charged(text) == Charged(70, 0, 9) and groups.headroom(text) == (910, "/a/b")
    # And a group that v2 charges, beside hierarchies of version 1 without the controller.
    (tmp_path / "unified" / "cgroup.controllers").write_text("memory\n")
    for name, content in (
        ("max", "500"),
        ("current", "300"),
        ("stat", "anon 250\nfile_mapped 5\nanon_thp 2\ninactive_file 0"),
    ):
        (two / f"memory.{name}").write_text(f"{content}\n")
    groups = Groups(first.replace("rw,memory", "rw,cpu") + second)
    text = "9:name=systemd:/\n3:cpu:/a/b\n0::/a/b\n"
    assert groups.charged(text) == Charged(250, 2, 5) and groups.headroom(text) == (200, "/a/b")
