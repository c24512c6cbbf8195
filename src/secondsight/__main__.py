"""``python -m secondsight``."""

from secondsight.cli import main

main()
