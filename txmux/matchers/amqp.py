"""The matcher for AMQP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AmqpMatcher"]

_AMQP_1_0 = rb"[\x00\x02\x03]\x01\x00\x00"
_AMQP_0 = rb"\x00\x00\x09\x01|\x01\x01(?:\x00[\x09\x0a]|\x08\x00)"
_PREDICATE = RegexPredicate(compile_pattern(rb"AMQP(?:%b|%b)" % (_AMQP_1_0, _AMQP_0)), 8)


@implementer(IProtocolMatcher)
class AmqpMatcher:
    """Matches the protocol header of an AMQP client, eight bytes.

    Behind ``AMQP`` stand the protocol and version of 1.0, plain, with TLS or with SASL (OASIS AMQP 1.0, sections
    2.2, 5.2.1 and 5.3.2), of 0-9-1 (AMQP 0-9-1, section 4.2.2), or of the older 0-8, 0-9 and 0-10 (sections 4.2.2 and
    4.3 of those).
    """

    name = "amqp"
    summary = "AMQP 0-8 to 0-10 and 1.0, by the protocol header"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
