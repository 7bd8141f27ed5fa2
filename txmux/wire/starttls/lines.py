"""SMTP, IMAP, POP3 and FTP, whose commands and answers are lines of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from txmux.wire.starttls.dialogue import Answer, ClearProtocol, ClientDialogue, answered
from txmux.wire.steps import Step

_TAG = re.compile(r"[A-Za-z0-9._-]{1,32}")
_LONGEST_BANNER = 200  # characters
_NOT_PRINTABLE = re.compile("[^ -~]+")

_IsLast = Callable[[bytes, bytes], bool]


def _one_line(_line: bytes, _first: bytes) -> bool:
    return True


def _coded(line: bytes, first: bytes) -> bool:
    """Return whether a line ends a reply, by its code (RFC 5321, section 4.2.1; RFC 959, section 4.2)."""
    return not first[:3].isdigit() or (line[:3] == first[:3] and line[3:4] != b"-")


def _tagged(line: bytes, _first: bytes) -> bool:
    return not line.startswith(b"* ")


@attrs.frozen
class _Lines:
    """A protocol of lines.

    Attributes:
        greeting: The beginning of a greeting, before its text.
        usual: The text of the greeting if there is none yet.
        go: The commands that start TLS.
        going: The answer to them.
        answers: Those to commands that do no harm; ``{host}`` is the first word of the banner.
        leave: The command that ends the connection.
        otherwise: The answer to anything else.
        own_text: What is left out of a server's greeting, since it is about that server or its connection.
        asked: Commands for servers, and the beginning of the answers.
        is_last: Tells whether a line is the last one of an answer, by that and the first line.
        has_tags: Whether a word precedes each command, and its answer.
    """

    greeting: str
    usual: str
    go: frozenset[str]
    going: str
    answers: Mapping[str, str]
    leave: tuple[str, str]
    otherwise: str
    asked: tuple[tuple[str, str], ...]
    is_last: _IsLast = _one_line
    own_text: str = r"$^"
    has_tags: bool = False

    def made(self) -> ClearProtocol:
        return ClearProtocol(
            lambda banner: self.line(f"{self.greeting}{banner}"),
            _length_of,
            self.answer,
            lambda _: self.steps(),
            self.usual,
            self.text_of,
        )

    def answer(self, dialogue: ClientDialogue, command: bytes) -> Answer:
        words = command.decode("ascii", "replace").split()
        tag = ""
        if self.has_tags:
            tag, words = (words[0], words[1:]) if words else ("", [])
            if not _TAG.fullmatch(tag):
                return Answer(self.line("* BAD no tag"))
            tag += " "
        text = " ".join(words).upper()
        if text in self.go:
            return Answer(self.line(tag + self.going), "tls")
        verb = text.partition(" ")[0]
        leave, goodbye = self.leave
        if verb == leave:
            return Answer(self.line(goodbye, tag), "end")
        host = dialogue.banner.partition(" ")[0]
        answer = self.answers.get(verb)
        return Answer(
            self.line(tag + self.otherwise) if answer is None else self.line(answer, tag, host=host)
        )

    @staticmethod
    def line(text: str, tag: str = "", host: str = "") -> bytes:
        filled = text.replace("{tag}", tag).replace("{host}", host)
        return f"{filled}\r\n".encode("ascii", "replace")

    def steps(self) -> list[Step]:
        steps = []
        for command, answer in self.asked:
            hint = f"when it was sent {command!r}" if command else "instead of a greeting"
            request = f"{command}\r\n".encode() if command else b""
            steps.append(Step(request, self._reader(answer.encode(), is_first=not command), hint))
        return steps

    def _reader(self, expected: bytes, *, is_first: bool) -> Callable[[bytes], int]:
        is_last = _one_line if is_first and self.has_tags else self.is_last

        def length_of(received: bytes) -> int:
            at = 0
            while end := received.find(b"\n", at) + 1:
                line = received[at:end]
                if is_last(line, received):
                    if line[: len(expected)].upper() != expected:
                        raise answered(line)
                    return end
                at = end
            return 0

        return length_of

    def text_of(self, greeting: bytes) -> str:
        first = greeting.splitlines()[0][len(self.greeting.partition("[")[0]) :]
        text = re.sub(self.own_text, "", first.decode("ascii", "replace"))
        return _NOT_PRINTABLE.sub(" ", text).strip()[:_LONGEST_BANNER]


def _length_of(data: bytes) -> int:
    return data.find(b"\n") + 1


# RFC 5321 and RFC 3207; a reply of 530 is what that says for every other command.
SMTP = _Lines(
    greeting="220 ",
    usual="localhost ESMTP",
    go=frozenset({"STARTTLS"}),
    going="220 2.0.0 Ready to start TLS",
    answers={
        "EHLO": "250-{host}\r\n250 STARTTLS",
        "HELO": "250 {host}",
        "NOOP": "250 2.0.0 OK",
        "RSET": "250 2.0.0 OK",
    },
    leave=("QUIT", "221 2.0.0 Bye"),
    otherwise="530 5.7.0 Must issue a STARTTLS command first",
    # The name is one that nobody has (RFC 2606): the client's own follows inside of TLS.
    asked=(("", "220"), ("EHLO txmux.invalid", "250"), ("STARTTLS", "220")),
    is_last=_coded,
).made()

# RFC 9051, sections 6.1 and 6.2.1, and RFC 5530 for the code.
IMAP = _Lines(
    greeting="* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ",
    usual="ready",
    go=frozenset({"STARTTLS"}),
    going="OK Begin TLS negotiation now",
    answers={
        "CAPABILITY": "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n{tag}OK done",
        "NOOP": "{tag}OK done",
    },
    leave=("LOGOUT", "* BYE\r\n{tag}OK done"),
    otherwise="NO [PRIVACYREQUIRED] STARTTLS first",
    asked=(("", "* OK"), ("1 STARTTLS", "1 OK")),
    is_last=_tagged,
    own_text=r"^\s*\[[^]]*\]",
    has_tags=True,
).made()

# RFC 1939, RFC 2449 and RFC 2595, section 4. A timestamp in the greeting would be for APOP on its own connection.
POP3 = _Lines(
    greeting="+OK ",
    usual="ready",
    go=frozenset({"STLS"}),
    going="+OK Begin TLS negotiation",
    answers={"CAPA": "+OK\r\nSTLS\r\n.", "NOOP": "+OK"},
    leave=("QUIT", "+OK"),
    otherwise="-ERR [SYS/PERM] STLS first",
    asked=(("", "+OK"), ("STLS", "+OK")),
    own_text=r"<[^>]*>",
).made()

# RFC 959, RFC 2389 and RFC 4217, section 4.
FTP = _Lines(
    greeting="220 ",
    usual="ready",
    go=frozenset({"AUTH TLS", "AUTH TLS-C", "AUTH SSL"}),
    going="234 Begin TLS negotiation",
    answers={"FEAT": "211-Features:\r\n AUTH TLS\r\n211 End", "NOOP": "200 OK"},
    leave=("QUIT", "221 Bye"),
    otherwise="530 AUTH TLS first",
    asked=(("", "220"), ("AUTH TLS", "234")),
    is_last=_coded,
).made()
