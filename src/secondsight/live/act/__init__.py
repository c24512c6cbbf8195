"""What changes a running process's memory, and the limits before which it stops."""
