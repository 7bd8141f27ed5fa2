"""Lines of `payload` with bytes by which clients of a matcher's protocol begin, but not all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.detection.transports import transports_of
from txmux.interfaces import Peeked, Transport, Verdict
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.rules.lint.coverage import read_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.model import Rules
    from txmux.rules.problems import Problem

_WORDS = re.compile(rb"[A-Za-z0-9 ]*")
"""Text that many protocols may begin with."""
_LEAST = 2
_NOT_ASKED = frozenset({"any", "payload", "random", "regex"})


def cut_signatures(rules: Rules, matchers: Mapping[str, IProtocolMatcher]) -> Iterator[Problem]:
    """Find bytes that are the beginning of what one matcher recognises, and of no other.

    Args:
        rules: The rules.
        matchers: The matchers there are.
    """
    for route in rules.routes:
        for number, alternative in enumerate(route.alternatives):
            line = read_line(alternative)
            if line.name != "payload" or line.options.keys() & {"mask", "offset"}:
                continue
            text = line.options.get("text")
            data = (
                bytes_from_hex("hex", line.options["hex"])
                if text is None
                else bytes_from_text(text)
            )
            name = _undecided(data, matchers)
            if name is not None:
                message = (
                    f"{line.text!r} is how some clients of '{name}' begin, and others begin otherwise; "
                    f"'match = {name}' knows all of them"
                )
                yield route.section.problem(message, "match", number)


def _undecided(data: bytes, matchers: Mapping[str, IProtocolMatcher]) -> str | None:
    """Name the only matcher for TCP that does not rule some first bytes out, if more of them would decide."""
    if len(data) < _LEAST or _WORDS.fullmatch(data):
        return None
    found = None
    for name, matcher in matchers.items():
        if name in _NOT_ASKED or Transport.TCP not in transports_of(matcher):
            continue
        try:
            verdict = matcher.predicate({})(Peeked(data))
        except Exception:  # nosec B112  # noqa: BLE001, S112 - a plugin may need options, or raise anything
            continue
        if verdict is Verdict.NO:
            continue
        if verdict is Verdict.MATCH or found is not None:
            return None
        found = name
    return found
