"""A recorded program or VM does not outlive its recorder, not even one that is killed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from secondsight.errors import MissingDependency

# Its input ends when the recorder does, however that goes. What is looked for stands in no command line of its own: it is put together
# here, and grep reads it.
_GUARD: Final = """
read _
n=0
while found=$(printf %s "$1" "$0" | grep -lF -f - /proc/[0-9]*/cmdline 2>/dev/null); [ "$found" ]; do
  [ $n -lt 50 ] && s=TERM || s=KILL
  for f in $found; do p=${f#/proc/}; kill -s $s "${p%/*}"; done 2>/dev/null
  n=$((n+1))
  sleep 0.1
done
rm -rf -- "$0"
"""


class Reaper:
    """When the recorder has ended or left the context: ends every process whose command line holds *option* and *directory* in one
    word, and removes *directory*.

    A signal at the parent's death reaches one child. This finds its children too, and those that left for a session of their own.
    """

    def __init__(self, option: str, directory: str) -> None:
        # In a session of its own: Ctrl-C is for the recorder.
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, directory, option], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ends_with_us(command: Sequence[str]) -> list[str]:
    """*command*, begun so that the kernel ends it (SIGTERM) when the thread that started it is gone.

    A program asks for that and then becomes *command* (:manpage:`setpriv(1)`): code of ours between fork and exec could meet a lock that
    another thread of this process held.

    :raises MissingDependency: without ``setpriv``.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise MissingDependency("recording needs setpriv, which is not installed (it comes with util-linux)")
    return [setpriv, "--pdeathsig", "TERM", "--", *command]
