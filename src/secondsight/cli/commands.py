"""The commands by task, and an example of each: what ``--help`` shows, without importing any of them, nor Typer."""

from __future__ import annotations

from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command's module under ``secondsight.cli``, and one line for ``--help``."""

    module: str
    line: str


#: task -> command -> what it is; in the order in which ``--help`` shows them.
TASKS: dict[str, dict[str, CommandEntry]] = {
    "A running process": {
        "doctor": CommandEntry("doctor", "What this kernel and these permissions let us see and do."),
        "explain": CommandEntry(
            "explain", "Why khugepaged will or will not collapse each block of a process."
        ),
        "watch": CommandEntry("watch", "Follow khugepaged's decisions as they happen."),
        "collapse": CommandEntry("collapse", "Make the hot blocks of a process huge, within a budget."),
        "snapshot": CommandEntry(
            "snapshot", "Capture what explain needs, to be judged later without privilege."
        ),
    },
    "A whole host": {
        "top": CommandEntry("top", "Whose memory is huge, could be, and what keeps it small."),
        "host": CommandEntry("host", "The supply of huge pages, counters as rates, khugepaged's pace."),
        "report": CommandEntry(
            "report", "A page of a recorded host: who grew, who was refused, what changed when."
        ),
        "export": CommandEntry("export", "The host as metrics for Prometheus' textfile collector."),
    },
    "A workload, under other settings": {
        "record": CommandEntry(
            "record", "Record the memory accesses of a program, a VM or a running process."
        ),
        "convert": CommandEntry(
            "convert", "Convert what others recorded, or a table of accesses, to a trace."
        ),
        "trace": CommandEntry("trace", "Look into a trace, cut it, merge several, recover a torn recording."),
        "compare": CommandEntry(
            "compare", "Compare policies and kernels on a trace: benefit, bloat and cost."
        ),
        "replay": CommandEntry("replay", "Replay a trace under any number of kernels' profiles."),
        "sweep": CommandEntry("sweep", "Compare many traces, policies, profiles and knobs; resumable."),
        "calibrate": CommandEntry(
            "calibrate", "Measure what a page walk costs this machine, for predicted run times."
        ),
        "verify": CommandEntry("verify", "What a change brought, beside what was predicted."),
    },
    "The model and the kernels it is checked against": {
        "scenario": CommandEntry(
            "scenario", "Run a scenario on the model and print what khugepaged would say."
        ),
        "rules": CommandEntry(
            "rules", "The kernel profiles, what differs between them, the evidence of each rule."
        ),
        "lab": CommandEntry("lab", "Boot real kernels, run scenarios in them, compare them with the model."),
    },
    "This command": {
        "completion": CommandEntry("completion", "Print what lets a shell complete command lines."),
    },
}
COMMANDS: dict[str, CommandEntry] = {name: entry for task in TASKS.values() for name, entry in task.items()}

#: command -> a command line that does what it is most asked for.
EXAMPLES: dict[str, str] = {
    "doctor": "secondsight doctor",
    "explain": "sudo secondsight explain --pid 4711",
    "watch": "sudo secondsight watch --for 60s",
    "collapse": "sudo secondsight collapse --pid 4711 --max-added 256MiB --dry-run",
    "snapshot": "sudo secondsight snapshot --pid 4711 -o vm.npz",
    "top": "sudo secondsight top --by cgroup",
    "host": "secondsight host",
    "report": "secondsight report host.parquet -o host.html",
    "export": "sudo secondsight export -o /var/lib/prometheus/node-exporter/secondsight.prom",
    "record run": "secondsight record run -o t.parquet -- sqlite3 test.db .dump",
    "record vm": "secondsight record vm -o t.parquet -- -m 512 -kernel bzImage -append console=ttyS0",
    "record pid": "sudo secondsight record pid --pid 4711 -o t.parquet --for 60s",
    "convert": "secondsight convert lackey.txt.zst -o t.parquet",
    "trace info": "secondsight trace info t.parquet",
    "trace cut": "secondsight trace cut t.parquet -o part.parquet --time 10s..20s",
    "trace merge": "secondsight trace merge vm1.parquet vm2.parquet -o host.parquet",
    "trace recover": "secondsight trace recover torn.parquet -o whole.parquet",
    "compare": "secondsight compare t.parquet -p khugepaged -p oracle -r 6.1 -r 7.3 --report out.html",
    "replay": "secondsight replay t.parquet -r 6.12 -r 7.3",
    "sweep": "secondsight sweep fleet.toml -o results/",
    "calibrate": "secondsight calibrate",
    "verify": "secondsight verify --pid 4711 --for 30s --save before.json",
    "scenario run": "secondsight scenario run examples/scenarios/guest-only-npt.toml -r 6.1 -r 7.3",
    "scenario check": "secondsight scenario check examples/scenarios/*.toml",
    "rules": "secondsight rules --diff 6.12 7.3",
    "lab kernels": "secondsight lab kernels --available",
    "lab fetch": "secondsight lab fetch 6.12 7.3",
    "lab drop": "secondsight lab drop 6.12",
    "lab boot": "secondsight lab boot hello.py --kernel 6.12 --mmu npt",
    "lab run": "secondsight lab run examples/scenarios/guest-only-npt.toml --kernel 7.3",
    "lab compare": "secondsight lab compare --random 60 --kernel 6.12 --mmu shadow --states",
    "lab build": "secondsight lab build --source linux-source-7.3 --patch mine.patch",
    "lab diff": "secondsight lab diff 6.12 7.3 --random 96",
    "lab hold": "secondsight lab hold examples/answers/7.3-npt.json.zst",
    "lab identify": "secondsight lab identify --kernel 6.18",
    "lab score": "secondsight lab score --kernel 6.1 --mmu npt",
    "completion": "secondsight completion bash > ~/.local/share/bash-completion/completions/secondsight",
}
#: Of a group, that of the command in it which is asked most.
EXAMPLES |= {
    group: EXAMPLES[f"{group} {command}"]
    for group, command in {"record": "run", "trace": "info", "scenario": "run", "lab": "run"}.items()
}


def overview() -> str:
    """What ``secondsight --help`` prints: every command with its line, by task."""
    width = max(map(len, COMMANDS))
    lines = [
        "Usage: secondsight COMMAND [OPTIONS] ...\n",
        "Which memory is really in use, through every MMU that maps it, and which deserves a huge page.\n",
    ]
    for task, entries in TASKS.items():
        lines += [f"{task}:", *(f"  {name:<{width}}  {entry.line}" for name, entry in entries.items()), ""]
    return "\n".join(
        [*lines, "secondsight COMMAND --help begins with an example; --version prints the version."]
    )
