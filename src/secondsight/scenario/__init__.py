"""The verbs, scenarios from files and at random, and what a run answers."""
