"""The matcher for the Java Debug Wire Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.fields import FieldsPredicate, literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["JdwpMatcher"]

_HANDSHAKE = b"JDWP-Handshake"


def _read_handshake(cursor: Cursor) -> None:
    literal(cursor, _HANDSHAKE)


@implementer(IProtocolMatcher)
class JdwpMatcher:
    """Matches the handshake of a Java debugger ("Java Debug Wire Protocol", section "JDWP Start-up").

    The debugger sends the 14 bytes ``JDWP-Handshake``, and the virtual machine answers with the same. A machine that
    itself connects to a waiting debugger sends nothing first.
    """

    name = "jdwp"
    summary = "Java debuggers (JDWP)"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return FieldsPredicate(_read_handshake, len(_HANDSHAKE), frozenset(_HANDSHAKE[:1]))
