"""The event columns; readers and recorders of real access traces."""
