"""Recordings that are read while they are written."""

from unittest.mock import patch

from secondsight.trace.recording import Recording


def flushed(recording):
    """*recording*, whose pending rows are in its stream, as if a second had passed since the last ones went there."""
    with patch.object(Recording, "due", True):
        recording.flush()
    return recording
