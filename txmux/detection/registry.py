"""The matchers that are installed, found by Twisted's plugin system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted import plugins
from twisted.plugin import getPlugins

from txmux.errors import MuxError
from txmux.interfaces import IProtocolMatcher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

__all__ = ["DuplicateMatcherError", "installed_matchers"]


class DuplicateMatcherError(MuxError):
    """Two plugins claim one name, so a rules file that uses it could mean either."""


def installed_matchers(package: ModuleType = plugins) -> dict[str, IProtocolMatcher]:
    """Find every matcher plugin.

    Args:
        package: The package whose modules hold the plugins.

    Returns:
        The matchers by name, sorted.

    Raises:
        DuplicateMatcherError: Two plugins have the same name; both are named.
    """
    return _by_name(getPlugins(IProtocolMatcher, package))


def _by_name(matchers: Iterable[IProtocolMatcher]) -> dict[str, IProtocolMatcher]:
    found: dict[str, IProtocolMatcher] = {}
    for matcher in matchers:
        other = found.setdefault(matcher.name, matcher)
        if other is not matcher:
            raise DuplicateMatcherError(
                f"two matchers are called {matcher.name!r}: {_origin(other)} and {_origin(matcher)}; "
                "uninstall one of them"
            )
    return dict(sorted(found.items()))


def _origin(matcher: IProtocolMatcher) -> str:
    kind = type(matcher)
    return f"{kind.__module__}.{kind.__qualname__}"
