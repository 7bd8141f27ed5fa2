"""The matcher for rsync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RsyncMatcher"]

_PREDICATE = RegexPredicate(compile_pattern(rb"@RSYNCD: [0-9]"), 10)


@implementer(IProtocolMatcher)
class RsyncMatcher:
    """Matches the greeting of a client of the rsync daemon.

    Both sides send ``@RSYNCD: VERSION.SUBPROTOCOL`` first, without waiting (``exchange_protocols`` in rsync's
    ``clientserver.c``, which reads it with ``@RSYNCD: %d.%d``). The first digit of the version decides.
    """

    name = "rsync"
    summary = "rsync clients of a daemon (rsync://)"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
