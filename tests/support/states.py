"""The state of a run, for tests of what reads or changes it."""

from tools.run.state import RunState


def run_state(**changed):
    """A run at its start, with some fields changed."""
    return RunState("toy", 0, 1, "abc", {"lr": 0.1, "resolutions": [16, 12]}, **changed)
