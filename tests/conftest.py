"""Settings of every tier."""

import os
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import settings

# A shell starts what it puts into the background with SIGINT ignored, and so would every program be that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no failure: no example has a deadline. A failure prints how to see it again.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")

#: What compiles the replay, which takes a minute where nothing is kept: one worker does it, while the others test the rest; and what uses
#: it, which is tested last, when it is there.
COMPILES = ("replay/", "cli/test_compare", "cli/test_replay", "cli/test_sweep")
USES = ("whatif/", "predict/", "docs/", "report/", "cli/test_main", "live/test_sampling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under ``--dist loadgroup``."""
    items.sort(key=lambda item: _in(item, USES))
    for item in items:
        if _in(item, COMPILES):
            item.add_marker(pytest.mark.xdist_group("replays"))


def _in(item: pytest.Item, places: tuple[str, ...]) -> bool:
    return item.nodeid.removeprefix("tests/").startswith(places)


@pytest.fixture
def full_device(tmp_path: Path) -> Path:
    """A device of the test's own that takes nothing, as /dev/full: whoever removes or replaces it harms nobody."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"mknod: {error.strerror}; it takes root, and a file system that has devices")
    return path
