"""How many random examples a test tries."""

import hypothesis


def scaled(count: int) -> int:
    """Give a number of examples for the profile of hypothesis that is in use.

    Args:
        count: The number for the profile of `script/test --all`, which is one of 100.
    """
    profile = hypothesis.settings.default
    assert profile is not None
    return max(5, count * profile.max_examples // 100)
