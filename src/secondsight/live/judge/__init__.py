"""The judgement of a snapshot, in words: pure, without privilege, on any machine."""
