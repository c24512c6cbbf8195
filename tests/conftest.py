"""Settings of every tier."""

from hypothesis import settings

# A loaded machine is no failure: no example has a deadline. A failure prints how to see it again.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")
