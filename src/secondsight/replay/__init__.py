"""A trace through the model: engine, TLB and walk costs, metrics.

``replay(trace, [Subject.of("6.1"), Subject.of("6.18")], time_scale=1000)`` returns a :class:`Result`; see ``docs/replay.md``.
"""

from __future__ import annotations

from secondsight.replay.engine import replay
from secondsight.replay.events import Events
from secondsight.replay.metrics import Result, SpaceResult, SubjectResult
from secondsight.replay.subject import HOST, Subject

__all__ = ["HOST", "Events", "Result", "SpaceResult", "Subject", "SubjectResult", "replay"]
