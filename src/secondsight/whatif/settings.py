"""``compare --apply``: the settings that the best row of a comparison means, as lines for a shell. Nothing is made here.

The best row is the one with the least predicted run time where there are such, else the one that the answer names
(``report.answer.best_row``). Bounds (never, oracle) are no settings, but never is one if every other row is predicted slower. What the
whole comparison was told of khugepaged's files and of sizes (``--knob``) belongs to the settings, where it is not the kernel's default.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from secondsight.errors import SecondSightError, UsageError
from secondsight.mm.config import Knobs
from secondsight.policy import find
from secondsight.policy.protocol import ONLY_IN_A_REPLAY
from secondsight.report.answer import best_row
from secondsight.report.metrics import text
from secondsight.report.schema import Results, Row
from secondsight.terminal import printable

_THP = "/sys/kernel/mm/transparent_hugepage"
#: khugepaged's files that a row's knobs or a policy's options may name.
_FILES = (
    "pages_to_scan",
    "scan_sleep_millisecs",
    "alloc_sleep_millisecs",
    "max_ptes_none",
    "max_ptes_swap",
    "max_ptes_shared",
)


def best(rows: Sequence[Row]) -> Row:
    """The row whose settings are told.

    :raises UsageError: there is none that a machine could be set to.
    """
    real = [row for row in rows if row.policy != "oracle" and not row.not_run]
    if not real:
        raise UsageError("--apply: only the oracle was run, which no setting makes")
    if all(row.metrics.get("run_time") is not None for row in real):
        return min(real, key=lambda row: (row.metrics["run_time"] or 0.0, row.metrics.get("bloat") or 0.0))
    return best_row([row for row in real if row.policy != "never"] or real)


def settings(results: Results) -> list[str]:
    """Lines for a shell: what to set for the best row, for the whole host and for one program alone; comments begin with ``#``.

    :raises UsageError: see :func:`best`.
    """
    row = best(results.rows)
    out = [
        f"# {printable(row.label)}: {_why(row)}",
        "# Nothing was set. For the whole host, until the next boot:",
    ]
    out += _host(row, results.provenance.config)
    alone = _alone(row)
    if alone:
        out += ["# Or for one program alone, whatever the host's setting:", *alone]
    out.append(
        "# To know whether it came true: secondsight verify --pid PID --save BEFORE.json now, and afterwards\n# "
        "secondsight verify --pid PID --before BEFORE.json --predicted RESULTS.json (what compare -o wrote)"
    )
    return out


def _why(row: Row) -> str:
    change = row.metrics.get("run_time_change")
    if change is not None:
        low, high = row.metrics.get("run_time_low"), row.metrics.get("run_time_high")
        return f"predicted {text(row.metrics['run_time'], 'seconds')} ({text(low, 'seconds')} to {text(high, 'seconds')}), {change:+.1%}"
    return f"{text(row.metrics.get('coverage'), 'share')} of the accesses in huge pages, {text(row.metrics.get('bloat'), 'bytes')} of bloat"


def _host(row: Row, told: Mapping[str, Any]) -> list[str]:
    """The lines for *row*; *told*: what the whole comparison was, as its provenance says."""
    out = []
    if row.policy == "never":
        return [f"echo never > {_THP}/enabled"]
    if row.policy == "khugepaged":
        # enabled=always would map huge pages at the first touch too, which is another row (always).
        out.append(
            "# No setting lets khugepaged alone make huge pages. Nearest: memory that asks for it once it was filled"
        )
        out.append(
            f"echo madvise > {_THP}/enabled  # and in the program madvise(MADV_HUGEPAGE) after the first touches"
        )
        out.append(f"echo 1 > {_THP}/khugepaged/defrag")
    if row.policy in ("always", "thp_shrinker"):
        out.append(f"echo always > {_THP}/enabled")
        out.append(
            f"[ -e {_THP}/hugepages-2048kB/enabled ] && echo inherit > {_THP}/hugepages-2048kB/enabled  # by size, from 6.8 on"
        )
        # With defrag at never a fault takes a huge page only where one lies ready; it does not wait.
        defrag = "madvise" if row.policy != "always" else "defer+madvise"
        out.append(f"echo {defrag} > {_THP}/defrag")
        daemon = "0" if str(row.options.get("khugepaged", "true")).lower() == "false" else "1"
        out.append(f"echo {daemon} > {_THP}/khugepaged/defrag")
    daemon_rows = ("always", "khugepaged", "thp_shrinker")
    files = _told(told) if row.policy in daemon_rows else {}
    for name, value in {**files, **row.options, **row.knobs}.items():
        # An option of -1 is the host's own value.
        if name in _FILES and (number := _number(name, value)) >= 0:
            out.append(f"echo {number} > {_THP}/khugepaged/{name}")
    sizes = told.get("sizes")
    if row.policy in daemon_rows and isinstance(sizes, dict):
        for size, word in sizes.items():
            out.append(
                f"echo {shlex.quote(printable(str(word)))} > {shlex.quote(printable(f'{_THP}/hugepages-{size}/enabled'))}"
            )
    if row.policy == "thp_shrinker":
        out.append(f"echo 1 > {_THP}/shrink_underused  # from 6.12 on")
    if row.policy not in daemon_rows:
        out += _from_outside(row)
    return out


def _told(told: Mapping[str, Any]) -> dict[str, Any]:
    """khugepaged's files that the whole comparison had at other values than the kernel's own."""
    usual = msgspec.to_builtins(Knobs())
    values = {name: told.get(f"khugepaged {name}", usual[name]) for name in _FILES if name in usual}
    return {name: value for name, value in values.items() if value != usual[name]}


def _from_outside(row: Row) -> list[str]:
    """How the decisions of a policy that is none of the kernel's are had on a running process, as far as they are."""
    try:
        needs = find(row.policy).needs
    except SecondSightError:  # of a package that is not here
        needs = frozenset()
    if reasons := [why for need, why in ONLY_IN_A_REPLAY.items() if need in needs]:
        return [
            f"# No setting of the kernel's makes this policy, and nothing carries it out on a running process: it {reasons[0]}.",
            "# Nearest, what is hot, now, from outside:",
            "secondsight collapse --pid PID",
        ]
    return [
        "# no setting of the kernel's makes this policy; its decisions, carried out from outside:",
        f"secondsight collapse --pid PID --policy {_policy(row)}",
    ]


def _alone(row: Row) -> list[str]:
    if row.policy == "never":
        return [
            "# prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) in the program, or systemd's MemoryTHP=disable where it is known"
        ]
    if row.policy == "khugepaged":
        return ["secondsight collapse --pid PID  # what is hot, now, from outside"]
    if row.policy in ("always", "thp_shrinker"):
        return [
            f"echo madvise > {_THP}/enabled  # and in the program madvise(MADV_HUGEPAGE); glibc's malloc does with "
            f"GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
            "secondsight collapse --pid PID  # what is hot, now, from outside",
        ]
    return []


def _policy(row: Row) -> str:
    # Whatever a file of results says is one word of the line for the shell.
    return shlex.quote(
        printable(",".join([row.policy, *(f"{key}={value}" for key, value in row.options.items())]))
    )


def _number(name: str, value: Any) -> int:
    """*value* of one of khugepaged's files.

    :raises UsageError: it is no number.
    """
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"--apply: {name}={value!r} of the best row is no number") from None
