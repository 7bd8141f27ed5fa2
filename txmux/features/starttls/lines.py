"""SMTP, IMAP, POP3 and FTP, whose commands and answers are lines of text."""

import re
from collections.abc import Collection, Mapping
from functools import partial

from txmux.classes import frozen
from txmux.features.starttls.dialogue import ClearProtocol, ClientDialogue, Then, answered
from txmux.wire.steps import Step

_TAG = re.compile(r"""[^\0- (){%*"\\+\x7f-\uffff]+""")
"""RFC 9051, section 9: any ASTRING-CHAR but a plus."""
_OF_SERVER = re.compile(r"^\s*\[[^]]*\]|<[^>]*>|[^ -~]")
"""What a greeting says of its own server or connection: capabilities of IMAP, and the timestamp of POP3 for APOP."""
_LONGEST_BANNER = 200  # characters


@frozen
class _Lines:
    """A protocol of lines.

    Attributes:
        start: The beginning of a greeting, before its text.
        go: The commands that start TLS.
        going: The answer to them.
        leave: The command that ends the connection, and the answer.
        otherwise: The answer to a command that is in none of these.
        answers: Those to commands that do no harm; ``{host}`` is the first word of the banner.
        asked: Commands for servers, and the beginning of the answers.
        has_tags: Whether a word precedes each command, and its answer.
    """

    banner: str
    start: str
    go: Collection[str]
    going: str
    leave: tuple[str, str]
    otherwise: str
    answers: Mapping[str, str]
    asked: tuple[tuple[str, str], ...]
    has_tags: bool = False

    def made(self) -> ClearProtocol:
        return ClearProtocol(
            _length_of, self.answer, self.steps, self.banner, self.greeting, self.text_of
        )

    def greeting(self, banner: str) -> bytes:
        return _line(self.start + banner)

    def text_of(self, greeting: bytes) -> str:
        first = greeting.splitlines()[0].decode("ascii", "replace")
        code = self.start.partition("[")[0]
        return _OF_SERVER.sub("", first[len(code) :]).strip()[:_LONGEST_BANNER]

    def answer(self, dialogue: ClientDialogue, command: bytes) -> tuple[bytes, Then]:
        words, tag = command.decode("ascii", "replace").split(), ""
        if self.has_tags:
            if not words or not _TAG.fullmatch(words[0]):
                return _line("* BAD no tag"), ""
            tag = f"{words.pop(0)} "
        text = " ".join(words).upper()
        verb = text.partition(" ")[0]
        if text in self.go:
            return _line(tag + self.going), "tls"
        if verb == self.leave[0]:
            return _line(self.leave[1].replace("{tag}", tag)), "end"
        answer = self.answers.get(verb, f"{{tag}}{self.otherwise}").replace("{tag}", tag)
        return _line(answer.replace("{host}", dialogue.banner.partition(" ")[0])), ""

    def steps(self, _name: str) -> tuple[Step, ...]:
        return tuple(
            Step(
                _line(command) if command else b"",
                partial(_length_of_reply, expected.encode(), self.has_tags and bool(command)),
                f"when it was sent {command!r}" if command else "instead of a greeting",
            )
            for command, expected in self.asked
        )


def _length_of(data: bytes) -> int:
    return data.find(b"\n") + 1


def _line(text: str) -> bytes:
    return f"{text}\r\n".encode("ascii", "replace")


def _length_of_reply(expected: bytes, is_tagged: bool, received: bytes) -> int:  # noqa: FBT001
    """Find the last line of a reply: by its code (RFC 5321, section 4.2.1; RFC 959, section 4.2), or its tag."""
    at, code = 0, received[:3]
    while end := received.find(b"\n", at) + 1:
        line = received[at:end]
        has_more = line[:3] != code or line[3:4] == b"-" if code.isdigit() else False
        if not (line.startswith(b"* ") if is_tagged else has_more):
            if line[: len(expected)].upper() != expected:
                raise answered(line)
            return end
        at = end
    return 0


# RFC 5321 and RFC 3207. EHLO has a name that no host has (RFC 2606): the client's own follows inside TLS.
SMTP = _Lines(
    "localhost ESMTP", "220 ", {"STARTTLS"}, "220 2.0.0 Ready to start TLS",
    ("QUIT", "221 2.0.0 Bye"), "530 5.7.0 Must issue a STARTTLS command first",
    {
        "EHLO": "250-{host}\r\n250 STARTTLS", "HELO": "250 {host}",
        "NOOP": "250 2.0.0 OK", "RSET": "250 2.0.0 OK",
    },
    (("", "220"), ("EHLO txmux.invalid", "250"), ("STARTTLS", "220")),
).made()  # fmt: skip

# RFC 9051, sections 6.1 and 6.2.1, and RFC 5530 for the code.
IMAP = _Lines(
    "ready", "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ", {"STARTTLS"},
    "OK Begin TLS negotiation now", ("LOGOUT", "* BYE logging out\r\n{tag}OK done"),
    "NO [PRIVACYREQUIRED] STARTTLS first",
    {
        "CAPABILITY": "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n{tag}OK done",
        "NOOP": "{tag}OK done",
    },
    (("", "* OK"), ("1 STARTTLS", "1 OK")), has_tags=True,
).made()  # fmt: skip

# RFC 1939, RFC 2449 and RFC 2595, section 4.
POP3 = _Lines(
    "ready", "+OK ", {"STLS"}, "+OK Begin TLS negotiation", ("QUIT", "+OK"),
    "-ERR [SYS/PERM] STLS first", {"CAPA": "+OK\r\nSTLS\r\n.", "NOOP": "+OK"},
    (("", "+OK"), ("STLS", "+OK")),
).made()  # fmt: skip

# RFC 959, RFC 2389 and RFC 4217, section 4.
FTP = _Lines(
    "ready", "220 ", {"AUTH TLS", "AUTH TLS-C", "AUTH SSL"}, "234 Begin TLS negotiation",
    ("QUIT", "221 Bye"), "530 AUTH TLS first",
    {"FEAT": "211-Features:\r\n AUTH TLS\r\n211 End", "NOOP": "200 OK"},
    (("", "220"), ("AUTH TLS", "234")),
).made()  # fmt: skip
