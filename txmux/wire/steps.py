"""What a server is asked before it gets its client's bytes: requests, and the answers that they must have."""

from collections.abc import Callable
from functools import partial

import attrs

from txmux.errors import MuxError
from txmux.interfaces import Exchange

_SHOWN = 40  # bytes


class RequestRefusedError(MuxError):
    """A server has given another answer than it must; the message says why, with the server as its subject."""


@attrs.frozen
class Step:
    """A request to a server.

    Attributes:
        request: Empty if the server speaks first.
        length_of: Returns the length of the answer with which some bytes begin, 0 as long as it is not complete; raises
            `RequestRefusedError` if it is another one.
        hint: What the request was, and what to do about another answer.
    """

    request: bytes
    length_of: Callable[[bytes], int]
    hint: str


def repeated(exchange: Exchange) -> Step:
    """Return the step that asks a server what its client asked before, and was answered here."""
    hint = (
        f"when it was asked {exchange.request!r}, to which the client had been told {exchange.answer!r}; "
        "let the server accept that, which for PostgreSQL is 'ssl = on', or match without sni="
    )
    return Step(exchange.request, partial(_length_of, exchange.answer), hint)


def _length_of(expected: bytes, received: bytes) -> int:
    if not expected.startswith(received):
        raise RequestRefusedError(f"it answered {received[:_SHOWN]!r}")
    return len(expected) if received == expected else 0
