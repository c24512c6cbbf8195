"""Who should be huge: khugepaged's own rule, and those of research and practice."""

from secondsight.policy.protocol import UNLIMITED, Decision, Look, Need, Policy
from secondsight.policy.ranges import Within, check, ranges
from secondsight.policy.registry import add, describe, find, make, names, options

__all__ = [
    "UNLIMITED",
    "Decision",
    "Look",
    "Need",
    "Policy",
    "Within",
    "add",
    "check",
    "describe",
    "find",
    "make",
    "names",
    "options",
    "ranges",
]
