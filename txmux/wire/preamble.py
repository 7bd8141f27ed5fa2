"""What stands before a client's own bytes; it has neither a connection nor a clock."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from typing_extensions import override

from txmux.classes import frozen
from txmux.interfaces import Exchange
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.hello.second import SecondHello
from txmux.wire.steps import RequestRefusedError, Step

NOTHING: Mapping[str, str] = MappingProxyType({})
"""What is said where there are no facts."""
_SHOWN = 40  # bytes


class Preamble:
    """What a client has said before its own bytes, and what follows from it. The defaults are for what nothing follows from.

    Attributes:
        request: What it has taken of the bytes that the client's route is decided by.
        holds_inside: Whether it still counts inside TLS, or a tunnel, that begins behind it.
        is_answered: Whether the client waits for neither `grant` nor `refusal`.
        second: Takes a second hello of TLS, if the client's own one has been replaced.
    """

    request: bytes = b""
    holds_inside: bool = True
    is_answered: bool = True
    second: SecondHello | None = None

    @property
    def granted(self) -> Mapping[str, str]:
        """What the client was granted something for, as in the access log; nothing inside replaces it."""
        return NOTHING

    @property
    def repeats_client(self) -> bool:
        """Whether `server_steps` repeats what the client has said."""
        return False

    def server_steps(
        self,
        note_greeting: Callable[[str], object],  # noqa: ARG002
        *,
        in_clear: bool,  # noqa: ARG002
    ) -> tuple[Step, ...]:
        """Return what a server is asked before it gets the client's own bytes.

        Args:
            note_greeting: Called with the text of the server's greeting, if it has one.
            in_clear: Whether the server gets what is inside the client's TLS, which ends here.
        """
        return ()

    def grant(self) -> bytes:
        """Return the bytes that accept what the client has asked for; none if it `is_answered`."""
        return b""

    def refusal(self, reason: str) -> bytes:  # noqa: ARG002
        """Return the bytes that refuse it, for a reason of the access log."""
        return b""

    def connect_failed(self, number: int) -> None:
        """Keep the system's number of the last failure to connect; 0 if there was none."""


class AnsweredRequest(Preamble):
    """A request that was answered here; a server is asked the same, and has to give the same answer."""

    holds_inside = False
    repeats_client = True

    def __init__(self, answered: Exchange) -> None:
        self.request, self._answer = answered.request, answered.answer

    @override
    def server_steps(
        self, note_greeting: Callable[[str], object], *, in_clear: bool
    ) -> tuple[Step, ...]:
        hint = (
            f"when it was asked {self.request!r}, to which the client had been told {self._answer!r}; "
            "let the server accept that, which for PostgreSQL is 'ssl = on', or match without sni="
        )
        return (Step(self.request, partial(_length_of, self._answer), hint),)


@frozen
class InnerHello(Preamble):
    """The start of a client's stream, and its inner hello if a key has opened one.

    Attributes:
        received: The stream as it came.
        stream: The same with the inner hello in the place of the outer one, if that was opened.
        end: Where the inner hello ends in that.
        facts: For the access log.
        outer: The facts if the outer hello is forwarded after all.
        fits: Returns whether the inner one can be forwarded by a route, or to the default without one.
        second: Opens a second one; ``None`` if nothing was opened.
        illegal: What is wrong with the inner hello.
    """

    holds_inside = False

    received: bytes
    stream: bytes
    facts: Mapping[str, str]
    second: SecondHello | None = None
    illegal: IllegalHelloError | None = None
    end: int = 0
    outer: Mapping[str, str] = NOTHING
    fits: Callable[[Any, Any], bool] = lambda *_: True

    def as_received(self, stream: bytes) -> bytes:
        """Return a stream that has grown since, with the hello as it came."""
        return self.received + stream[len(self.stream) :]


class HelloOpener(Protocol):
    """Opens the inner hello that a stream begins with."""

    def read(self, data: bytes, *, last: bool = False) -> InnerHello | None:
        """Look at all bytes so far; ``None`` if more are needed, which with `last` will not come."""


def _length_of(expected: bytes, received: bytes) -> int:
    if not expected.startswith(received):
        raise RequestRefusedError(f"it answered {received[:_SHOWN]!r}")
    return len(expected) if received == expected else 0
