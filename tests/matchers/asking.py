"""Questions to a matcher, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.interfaces import Peeked
from txmux.testing import decided, facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.interfaces import IProtocolMatcher
    from txmux.testing import Decided


def verdicts_of(matcher: IProtocolMatcher) -> Callable[..., Decided]:
    """Make a function that gives the verdict on a sample, and the byte it came at; options are named arguments."""
    return lambda data, **options: decided(matcher.predicate(options), data)


def facts_of(matcher: IProtocolMatcher) -> Callable[..., dict[str, str]]:
    """Make a function that gives the facts of a sample; options are named arguments."""
    return lambda data, **options: facts(matcher.predicate(options), Peeked(data))
