"""A trace through the model: engine, TLB and walk costs, metrics.

``replay(trace, [Configuration.of("6.1"), Configuration.of("6.18")], time_scale=1000)`` returns a :class:`Result`; see ``docs/replay.md``.
"""

from __future__ import annotations

from secondsight.replay.configuration import HOST, Configuration
from secondsight.replay.engine import replay
from secondsight.replay.events import Events
from secondsight.replay.metrics import ConfigurationResult, Result, SpaceResult

__all__ = ["HOST", "Configuration", "ConfigurationResult", "Events", "Result", "SpaceResult", "replay"]
