"""A running Linux: procfs, tracefs, kernel memory, snapshots, collapse."""
