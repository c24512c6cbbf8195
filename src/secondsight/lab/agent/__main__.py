"""The agent: takes batches from the host, one after the other, and answers each.

host ─▶ {"batch": id, "scenario": {...}, "observe": {step: [space, ...]}, "states": bool}
     ◀─ {"hello": provenance}            once; or
     ◀─ {"lacks": [what, ...]}           a kernel that can answer nothing
     ◀─ {"at": [id, step]}               before every step, so that a guest that dies names the step
     ◀─ {"done": id, "blocks": [...], "answers": [...], "states": [...]}
     ◀─ {"failed": id, "step": step, "why": text, "lost": bool}    this batch has no answer; lost: better boot anew
host ─▶ {"quit": true}
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from typing import Any

import msgspec

from secondsight.lab import wire
from secondsight.lab.agent import knobs, libc
from secondsight.lab.agent.batch import Boot, ScenarioRunner
from secondsight.lab.agent.needs import missing
from secondsight.scenario.verbs import Scenario


def main() -> None:
    """Serve the host until it says quit or hangs up."""
    port = wire.Port()
    if lacks := missing(states="--states" in sys.argv):
        port.send({"lacks": lacks})
        return
    knobs.quiet()
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    host = Boot()
    gc.disable()
    gc.freeze()
    port.send({"hello": host.provenance()})
    while True:
        try:
            request = port.receive()
        except EOFError:
            return
        if "quit" in request:
            return
        port.send(_answer(host, port, request))


def _answer(host: Boot, port: wire.Port, request: dict[str, Any]) -> dict[str, Any]:
    number = request["batch"]
    at = [0]

    def say(step: int) -> None:
        at[0] = step
        port.send({"at": [number, step]})

    batch = None
    try:
        scenario = msgspec.convert(request["scenario"], Scenario)
        batch = ScenarioRunner(
            host, scenario, {int(k): v for k, v in request["observe"].items()}, request["states"]
        )
        batch.run(say)
        answer = {"done": number, **batch.answer()}
    except Exception as error:  # whatever it is, only this batch is lost
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"  # noqa: PTH119
        traceback.print_exc()  # whole, on the console
        lost = not isinstance(error, OSError)
        answer = {"failed": number, "step": at[0], "why": why, "lost": lost}
    if batch:
        batch.close()
    return answer


main()
