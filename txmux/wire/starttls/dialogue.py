"""The dialogue with a client until its TLS begins, and what is common to all protocols. It has neither a connection nor a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import attrs

from txmux.errors import printable
from txmux.wire.steps import RequestRefusedError, Step

LONGEST_COMMAND = 4096  # bytes
MOST_COMMANDS = 20
HANDSHAKE = b"\x16"  # the first byte of TLS (RFC 8446, section 5.1)
_SHOWN = 60  # characters

NOT_TLS = "it sent something else than TLS behind STARTTLS, or did not wait for the answer"

MALFORMED = -1
"""The length of what is no command."""


class Answer(NamedTuple):
    """The answer to a command of a client, and whether TLS or the end of the connection follows."""

    data: bytes
    then: Literal["", "tls", "end"] = ""


@attrs.frozen
class ClearProtocol:
    """A protocol that begins in the clear.

    Attributes:
        greeting: Returns what a server says first, with the text of a banner.
        length_of: Returns the length of the first command of some bytes: 0 as long as it is not complete, or `MALFORMED`.
        answer: Returns the answer to a command.
        steps: Returns the steps to a server's TLS; ``name`` is that of the client's dialogue.
        banner: The text of the usual greeting; empty if the client speaks first.
        text_of: Returns the text of a server's greeting.
    """

    greeting: Callable[[str], bytes]
    length_of: Callable[[bytes], int]
    answer: Callable[[ClientDialogue, bytes], Answer]
    steps: Callable[[str], Sequence[Step]]
    banner: str = ""
    text_of: Callable[[bytes], str] = lambda greeting: ""  # noqa: ARG005

    def dialogue(self, banner: str = "") -> ClientDialogue:
        """Begin the dialogue with a client."""
        return ClientDialogue(self, banner)

    def server_steps(
        self,
        note_greeting: Callable[[str], object],
        name: str = "",
        *,
        in_clear: bool,
    ) -> tuple[Step, ...]:
        """Return what a server is asked for a client.

        Args:
            note_greeting: Called with the text of the server's greeting.
            name: That of the client's dialogue.
            in_clear: Whether the server gets the protocol without TLS, since that ends here. Then only its greeting is read.
        """
        steps = tuple(self.steps(name))
        if not self.banner:
            return () if in_clear else steps
        greeting = steps[0]

        def length_of(received: bytes) -> int:
            length = greeting.length_of(received)
            if length:
                note_greeting(self.text_of(received[:length]))
            return length

        first = attrs.evolve(greeting, length_of=length_of)
        return (first,) if in_clear else (first, *steps[1:])


class ClientDialogue:
    """The dialogue with one client, which it has with txmux as with a server that has nothing but STARTTLS.

    Args:
        banner: The text of the greeting; empty is the usual one.

    Attributes:
        first: What is sent first.
        name: What the client has named, if its server must be asked for it: attributes of a stream of XMPP.
        then: What follows, once it is not empty: TLS, or the end of the connection.
        problem: Why the connection ends; empty if the client has asked for that.
        rest: The bytes behind the last command.
    """

    def __init__(self, protocol: ClearProtocol, banner: str = "") -> None:
        self.protocol = protocol
        self.banner = banner or protocol.banner
        self.first = protocol.greeting(self.banner)
        self.name = ""
        self.then: Literal["", "tls", "end"] = ""
        self.problem = ""
        self.rest = b""
        self._commands = 0

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the client; returns the answers. However the bytes are cut, the answers are the same."""
        if self.then == "tls":
            self.refuse(NOT_TLS)
        self.rest += data
        sent = b""
        while not self.then:
            length = self.protocol.length_of(self.rest[:LONGEST_COMMAND])
            if length > 0:
                command, self.rest = self.rest[:length], self.rest[length:]
                answer, self.then = self.protocol.answer(self, command)
                if self.then == "tls" and self.rest:
                    self.refuse(NOT_TLS)
                    break
                sent += answer
                self._commands += 1
                if self._commands == MOST_COMMANDS and not self.then:
                    self.refuse(f"it sent {MOST_COMMANDS} commands without STARTTLS")
            elif length == MALFORMED:
                self.refuse(f"it sent {shown(self.rest)}, which is no command")
            elif len(self.rest) >= LONGEST_COMMAND:
                self.refuse(f"it sent a command of more than {LONGEST_COMMAND} bytes")
            else:
                break
        return sent

    def refuse(self, problem: str) -> None:
        """End the dialogue; the problem is for the log, with the client as its subject."""
        self.then, self.problem = "end", problem


def answered(answer: bytes) -> RequestRefusedError:
    """Make the error for an answer that is not the one that a server must give."""
    return RequestRefusedError(f"it answered {shown(answer)}")


def shown(data: bytes) -> str:
    """Return the beginning of what a client or a server has sent, for a message."""
    return repr(printable(data.decode("ascii", "replace").strip(), _SHOWN))
