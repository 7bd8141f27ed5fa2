"""How many examples a test tries."""

import os
import zlib

_TURN = os.environ.get("TXMUX_TURN", "")
"""The number of a commit, by which `.ci/run` chooses some examples of many; without it, all are tried."""

SHARE = 4
"""Of how many commits one tries an example: as many as Pythons try each commit in the workflow, which together try all."""


def scaled(count: int) -> int:
    """Give a number of examples for the profile of hypothesis that is in use.

    Args:
        count: The number for the profile of `script/test --all`, which is one of 100.
    """
    from hypothesis import settings  # noqa: PLC0415 - takes longer to import than a run of few tests

    profile = settings.default
    assert profile is not None
    return max(5, count * profile.max_examples // 100)


def has_turn(name: str, turn: str = _TURN) -> bool:
    """Tell whether an example, or a test, is tried for a commit: one in `SHARE` of them is, by chance."""
    return not turn or (zlib.adler32(name.encode()) + int(turn)) % SHARE == 0
