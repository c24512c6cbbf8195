"""Hardware layouts as pure functions over uint64 arrays; imports nothing of ours."""
