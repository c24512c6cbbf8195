"""Settings of every tier."""

import signal

from hypothesis import settings

# A shell starts what it puts into the background with SIGINT ignored, and so would every program be that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no failure: no example has a deadline. A failure prints how to see it again.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")
