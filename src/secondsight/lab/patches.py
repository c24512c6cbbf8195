"""Patches on a source tree, and off it again: what a patch touches is kept beside the tree before it is changed.

restore ── the files of the last patches are as the source has them ──▶ apply ── saved first, then patch(1), in order
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from secondsight.errors import InputError, SecondSightError
from secondsight.lab.fetch import write
from secondsight.wholefile import read_whole

_LIMIT = 1 << 26  # bytes

__all__ = ["apply", "restore", "touched"]


def touched(patch: Path) -> list[str]:
    """The files that *patch* changes, by their path in the tree (``patch -p1``).

    :raises InputError: it cannot be read, names no file, or names one outside the tree.
    """
    text = read_whole(patch, _LIMIT, "a patch").decode("utf-8", "replace")
    files: dict[str, None] = {}
    for line in text.splitlines():
        hit = re.match(r"(?:---|\+\+\+) ([^\t]+)|rename (?:from|to) (.+)", line)
        name = (hit[1] or f"a/{hit[2]}").strip() if hit else ""
        if not hit or name == "/dev/null" or "/" not in name:
            continue
        path = name.partition("/")[2]
        if name.startswith("/") or ".." in Path(path).parts:
            raise InputError(str(patch), "", f"changes {name}, which is outside the source")
        files[path] = None
    if not files:
        raise InputError(
            str(patch), "", "changes no file; a unified diff is asked for, as `git format-patch` writes it"
        )
    return list(files)


def apply(patches: Sequence[Path], tree: Path, kept: Path) -> None:
    """Apply *patches* to *tree* in their order; what they change is first copied to *kept*, for :func:`restore`.

    :raises SecondSightError: one does not apply; the tree is then as it was before the first.
    """
    files = list(dict.fromkeys(path for patch in patches for path in touched(patch)))
    if not files:
        return
    shutil.rmtree(kept, ignore_errors=True)
    there = {path: (tree / path).is_file() for path in files}
    for path, exists in there.items():
        if exists:
            (kept / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / path, kept / "files" / path)
    kept.mkdir(parents=True, exist_ok=True)
    write(kept / "touched.json", msgspec.json.encode(there))
    for patch in patches:
        done = subprocess.run(
            ["patch", "-p1", "-f", "-s", "--no-backup-if-mismatch", "-r", "-", "-i", str(patch.resolve())],
            cwd=tree, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode:
            restore(tree, kept)
            messages = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            why = next(
                (line for line in messages if "FAILED" in line or "can't find" in line),
                messages[0] if messages else "",
            )
            raise SecondSightError(f"{patch} does not apply: {why}; make it anew against this very source")


def restore(tree: Path, kept: Path) -> None:
    """Put the files that *kept* holds back into *tree*, and remove from it what the patches had added."""
    try:
        there = msgspec.json.decode((kept / "touched.json").read_bytes(), type=dict[str, bool])
    except FileNotFoundError:
        shutil.rmtree(kept, ignore_errors=True)  # killed before anything was changed
        return
    for path, existed in there.items():
        if existed:
            # A new file in the old one's place: the old one may be shared with a tree of the user's.
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).unlink(missing_ok=True)
            shutil.copy(kept / "files" / path, tree / path)
        else:
            (tree / path).unlink(missing_ok=True)
    shutil.rmtree(kept)
