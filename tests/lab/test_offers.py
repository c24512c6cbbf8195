"""What a name means, of what an archive offers."""

import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.lab.offers import Offer, choose, valid, version_key

VERSIONS = {
    "5.10.0-46-amd64": "5.10.262-1",
    "6.12.43+deb12-amd64": "6.12.43-1~bpo12+1",
    "6.12.117+deb12-amd64": "6.12.117-1~deb12u1",
    "6.12.117+deb13-amd64": "6.12.117-1",
    "7.2.13+deb14-amd64": "7.2.13-1",
    "7.3.4+deb13-amd64": "7.3.4-1~bpo13+1",
    "7.3-amd64": "7.3~rc7-1~exp1",
    "7.4-amd64": "7.4~rc1-1~exp1",
}
OFFERS = [Offer(version, release, ("suite",), ()) for release, version in VERSIONS.items()]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("newest", "7.3.4-1~bpo13+1"),  # of all suites, and no candidate
        ("6.12", "6.12.117-1"), ("5.10", "5.10.262-1"), ("7.3", "7.3.4-1~bpo13+1"),
        ("7.4", "7.4~rc1-1~exp1"),  # nothing else yet
        ("6.12.43", "6.12.43-1~bpo12+1"), ("6.12.117", "6.12.117-1"), ("6.12.117-1~deb12u1", "6.12.117-1~deb12u1"),
        ("6.12=6.12.43-1~bpo12+1", "6.12.43-1~bpo12+1"), ("newest=7.2.13-1", "7.2.13-1"), ("7.3~rc7", "7.3~rc7-1~exp1"),
        ("5.10.0-46-amd64", "5.10.262-1"), ("6.12.43+deb12-amd64", "6.12.43-1~bpo12+1"),
    ],
)  # fmt: skip
def test_a_name_means_one_kernel(name: str, version: str) -> None:
    assert valid(name)
    mixed = random.Random(1).sample(OFFERS, len(OFFERS))
    assert choose(name, mixed).version == version


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("6.12.44", r"no kernel 6\.12\.44; of 6\.12 it has 6\.12\.43-1~bpo12\+1, 6\.12\.117-1~deb12u1, 6\.12\.117-1$"),
        ("6.12=6.12.9-1", r"no kernel 6\.12\.9-1; of 6\.12 it has"),
        ("5.10=6.12.117-1", r"no kernel 6\.12\.117-1; of 5\.10 it has 5\.10\.262-1"),
        ("5.4", r"it has 5\.10, 6\.12, 7\.2, 7\.3, 7\.4; `secondsight lab kernels --available` lists all"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_said_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose(name, OFFERS)


@pytest.mark.parametrize(
    "name", ["", "6", "6.", "noise", "6.1x", "old=6.1.1-1", "6.1=", "=6.1", "6.1 ", "6.1;x", "-o", "6.1=x"]
)
def test_what_could_mean_no_kernel(name: str) -> None:
    assert not valid(name)


LETTERS = st.text("0129.+~ab", min_size=1, max_size=8)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg to ask")
@settings(max_examples=60)
@given(LETTERS, LETTERS, st.sampled_from(["", "-1", "-1~bpo12+1", "-2.1"]))
def test_versions_sort_as_dpkg_sorts_them(one: str, other: str, revision: str) -> None:
    a, b = f"6{one}{revision}", f"6{other}"
    older = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0
    newer = subprocess.run(["dpkg", "--compare-versions", a, "gt", b], check=False).returncode == 0
    assert (version_key(a) < version_key(b), version_key(a) > version_key(b)) == (older, newer)
