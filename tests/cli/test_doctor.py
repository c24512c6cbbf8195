"""What doctor finds, with whatever rights the tests have."""

import json
import os
from pathlib import Path

from secondsight.live.judge.inputs import INPUTS
from support.commands import printed


def test_doctor_answers_with_any_rights(capsys):
    report = json.loads(printed(capsys, "doctor", "--json"))
    groups = {check["group"] for check in report["checks"]}
    assert groups == {"kernel", "switch", "channel", "verb"}
    shown = {check["name"] for check in report["checks"] if check["group"] == "switch"}
    assert shown == {each.name for each in INPUTS if each.group == "switch"}, "every switch of the table"
    assert all(check["mend"] for check in report["checks"] if check["state"] == "no"), (
        "what is missing has a mend"
    )
    assert report["kernel"] == os.uname().release
    checks = {check["name"]: check for check in report["checks"]}
    # What `who splits` of host needs is a check of its own, and the verb hangs on it.
    assert checks["host: who splits"]["state"] == checks["function tracer"]["state"]
    assert not list(Path("/sys/kernel/tracing/instances").glob(f"secondsight-{os.getpid()}-*"))


def test_lines_and_json_say_the_same(capsys):
    report = json.loads(printed(capsys, "doctor", "--json"))
    lines = printed(capsys, "doctor").splitlines()
    assert lines[0].startswith(f"kernel {report['kernel']}, ")
    shown = [line for line in lines if line[:4] in ("  + ", "  ~ ", "  - ")]
    groups = ["kernel", "switch", "channel", "verb"]
    checks = sorted(report["checks"], key=lambda check: groups.index(check["group"]))
    marks = {"yes": "+", "partly": "~", "no": "-"}
    assert len(shown) == len(checks)
    for line, check in zip(shown, checks, strict=True):
        assert line.startswith(f"  {marks[check['state']]} {check['name']}")
    mends = sum("mend: " in line for line in lines)
    assert mends == sum(check["state"] != "yes" and bool(check["mend"]) for check in checks)
    assert sum(line.startswith("  open, judged both ways: ") for line in lines) == len(report["open_points"])
