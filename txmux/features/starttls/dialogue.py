"""The dialogue with a client until its TLS begins, and what is common to all protocols. It has neither a connection nor a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs
from typing_extensions import override

from txmux.classes import frozen
from txmux.errors import printable
from txmux.wire.preamble import Preamble
from txmux.wire.steps import RequestRefusedError, Step

LONGEST_COMMAND = 4096  # bytes
MOST_COMMANDS = 20
MALFORMED = -1  # the length of what is no command
NOT_TLS = "it sent something else than TLS behind STARTTLS, or did not wait for the answer"

_SHOWN = 60  # characters

Then: TypeAlias = Literal["", "tls", "end"]
"""What follows a command: another one, TLS, or the end of the connection."""


@frozen
class ClearProtocol:
    """A protocol that begins in the clear.

    Attributes:
        length_of: Returns the length of the first command of some bytes: 0 as long as it is not complete, or `MALFORMED`.
        answer: Returns the answer to a client's command.
        steps: Returns the steps to the TLS of a server; the name is that of the client's dialogue.
        banner: The text of the usual greeting; empty if the client speaks first.
        greeting: Returns what a server says first, with the text of a banner.
        text_of: Returns the text of a server's greeting.
    """

    length_of: Callable[[bytes], int]
    answer: Callable[[ClientDialogue, bytes], tuple[bytes, Then]]
    steps: Callable[[str], tuple[Step, ...]]
    banner: str = ""
    greeting: Callable[[str], bytes] = str.encode
    text_of: Callable[[bytes], str] = bytes.decode


class ClientDialogue(Preamble):
    """The dialogue with one client, which it has with txmux as with a server that has nothing but STARTTLS.

    Args:
        banner: The text of the greeting; empty is the usual one.

    Attributes:
        first: What is sent first.
        name: What the client has named, if its server must be asked for it: attributes of a stream of XMPP.
        then: What follows, once it is not empty.
        problem: Why the connection ends; empty if the client has asked for that.
    """

    def __init__(self, protocol: ClearProtocol, banner: str) -> None:
        self.protocol = protocol
        self.banner = banner or protocol.banner
        self.first = protocol.greeting(self.banner)
        self.name = self.problem = ""
        self.then: Then = ""
        self._rest = b""
        self._commands = 0

    @property
    @override
    def repeats_client(self) -> bool:
        return bool(self.name)

    @override
    def server_steps(
        self, note_greeting: Callable[[str], object], *, in_clear: bool
    ) -> tuple[Step, ...]:
        protocol = self.protocol
        steps = protocol.steps(self.name)
        if not protocol.banner:
            return () if in_clear else steps

        def length_of(received: bytes) -> int:
            length = steps[0].length_of(received)
            if length:
                note_greeting(protocol.text_of(received[:length]))
            return length

        first = attrs.evolve(steps[0], length_of=length_of)
        return (first,) if in_clear else (first, *steps[1:])

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the client; returns the answers. However the bytes are cut, the answers are the same."""
        if self.then == "tls":
            self.refuse(NOT_TLS)
        self._rest += data
        sent = b""
        while not self.then:
            length = self.protocol.length_of(self._rest[:LONGEST_COMMAND])
            if length > 0:
                sent += self._answer(length)
            elif length == MALFORMED:
                self.refuse(f"it sent {shown(self._rest)}, which is no command")
            elif len(self._rest) >= LONGEST_COMMAND:
                self.refuse(f"it sent a command of more than {LONGEST_COMMAND} bytes")
            else:
                break
        return sent

    def _answer(self, length: int) -> bytes:
        command, self._rest = self._rest[:length], self._rest[length:]
        answer, self.then = self.protocol.answer(self, command)
        self._commands += 1
        if self.then == "tls" and self._rest:
            self.refuse(NOT_TLS)
            return b""
        if not self.then and self._commands == MOST_COMMANDS:
            self.refuse(f"it sent {MOST_COMMANDS} commands without STARTTLS")
        return answer

    def refuse(self, problem: str) -> None:
        self.then, self.problem = "end", problem


def answered(answer: bytes) -> RequestRefusedError:
    return RequestRefusedError(f"it answered {shown(answer)}")


def shown(data: bytes) -> str:
    return f"'{printable(data.decode('ascii', 'replace').strip(), _SHOWN)}'"
