"""Amounts as operators write them on the command line: sizes, paces, times, shares."""

from __future__ import annotations

import re

from secondsight.errors import UsageError
from secondsight.geometry import PAGE_SIZE, PMD_SIZE
from secondsight.plural import pluralize

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(?:i?[bB])?"
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_pace(text: str) -> int:
    """``512MiB/s``, ``1G/s``, ``4096k`` as bytes a second; at least one block.

    :raises UsageError: not such an amount.
    """
    match = re.fullmatch(rf"{_SIZE}(?:/s)?", text.strip())
    if match is None or (amount := int(float(match[1]) * _UNITS[match[2].lower()])) < PMD_SIZE:
        raise UsageError(f"--budget {text}: write an amount a second such as 512MiB/s, at least 2MiB/s")
    return amount


def parse_size(text: str, option: str) -> int:
    """``512MiB``, ``1G``, ``0`` as bytes.

    :raises UsageError: not such an amount, or less than a page and not none; the text names *option*.
    """
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise UsageError(f"{option} {text}: write an amount such as 512MiB")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if size < PAGE_SIZE and float(match[1]):
        meant = f"; {match[1]}M?" if not match[2] else ""
        raise UsageError(f"{option} {text}: is {pluralize(size, 'byte')}, less than a page{meant}")
    return size


def parse_stall(text: str) -> float:
    """``5ms``, ``0.5s``, ``800us`` as seconds.

    :raises UsageError: not such a time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--max-stall {text}: write a time such as 5ms or 800us")
    return float(match[1]) * _SECONDS[match[2]]


def parse_duration(text: str, option: str) -> float:
    """``30s``, ``2min``, ``500ms`` as seconds.

    :raises UsageError: not such a time; the text names *option*.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)", text.strip())
    if match is None or not 0 < (seconds := float(match[1]) * _SECONDS[match[2]]) <= 86400:
        raise UsageError(f"{option} {text}: write a time such as 30s or 2min, at most a day")
    return seconds


def parse_share(text: str, option: str, example: str = "95%") -> float:
    """``95%`` as 0.95.

    :raises UsageError: not a percentage above 0 and up to 100; the text names *option*.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f"{option} {text}: write a percentage such as {example}")
    return float(match[1]) / 100
