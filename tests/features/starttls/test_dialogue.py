import itertools
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.starttls import NAMES
from txmux.features.starttls.dialogue import LONGEST_COMMAND, MOST_COMMANDS, NOT_TLS, ClientDialogue
from txmux.features.starttls.protocols import PROTOCOLS, begun, tls_of
from txmux.wire.steps import RequestRefusedError

_STARTTLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
_HEADER = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='example.com' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
_OFFER = b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"
_EXTENDED = b"\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

CLIENTS: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "smtp": (
        (b"EHLO me\r\n", b"250-mail.example\r\n250 STARTTLS\r\n"),
        (b"helo me\n", b"250 mail.example\r\n"),
        (b"MAIL FROM:<me@example.com>\r\n", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"AUTH PLAIN AGEAYg==\r\n", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"NOOP\r\n", b"250 2.0.0 OK\r\n"),
        (b"starttls\r\n", b"220 2.0.0 Ready to start TLS\r\n"),
    ),
    "imap": (
        (b"a CAPABILITY\r\n", b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na OK done\r\n"),
        (b"b LOGIN me secret\r\n", b"b NO [PRIVACYREQUIRED] STARTTLS first\r\n"),
        *((tag + b" NOOP\r\n", tag + b" OK done\r\n") for tag in (b"$2", b"a/1:x]", b"x" * 200)),
        *((tag + b" NOOP\r\n", b"* BAD no tag\r\n") for tag in (b"+", b"a+", b"(a", b"a\x7f", b"\xc3\xa4")),
        (b"\r\n", b"* BAD no tag\r\n"),
        (b"c noop\r\n", b"c OK done\r\n"),
        (b"d STARTTLS\r\n", b"d OK Begin TLS negotiation now\r\n"),
    ),
    "pop3": (
        (b"CAPA\r\n", b"+OK\r\nSTLS\r\n.\r\n"),
        (b"USER me\r\n", b"-ERR [SYS/PERM] STLS first\r\n"),
        (b"STLS\r\n", b"+OK Begin TLS negotiation\r\n"),
    ),
    "ftp": (
        (b"FEAT\r\n", b"211-Features:\r\n AUTH TLS\r\n211 End\r\n"),
        (b"USER me\r\n", b"530 AUTH TLS first\r\n"),
        (b"AUTH  tls\r\n", b"234 Begin TLS negotiation\r\n"),
    ),
    "xmpp": (
        (
            _HEADER,
            (
                b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' from='example.com' id='starttls' "
                b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
                b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
            ),
        ),
        (b" \n" + _STARTTLS, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
    ),
    "ldap": (
        (b"\x30\x0c\x02\x01\x07\x60\x07\x02\x01\x03\x04\x00\x80\x00",
         b"\x30\x1a\x02\x01\x07\x61\x15\x0a\x01\x0d\x04\x00\x04\x0eStartTLS first"),
        (b"\x30\x06\x02\x01\x08\x50\x01\x07", b""),
        (b"\x30\x84\x00\x00\x00\x1e\x02\x02\x01\x09" + _EXTENDED,
         b"\x30\x0d\x02\x02\x01\x09\x78\x07\x0a\x01\x00\x04\x00\x04\x00"),
    ),
}  # fmt: skip
"""What clients send, and are answered; the last command starts TLS."""

SERVERS: dict[str, tuple[tuple[bytes, bytes, bytes], ...]] = {
    "smtp": (
        (b"", b"220-mail.example ESMTP\r\n220 hello\r\n", b"554 5.7.1 no\r\n"),
        (b"EHLO txmux.invalid\r\n", b"250-mail.example\r\n250 STARTTLS\r\n", b"421 no\r\n"),
        (b"STARTTLS\r\n", b"220 go\r\n", b"454-not\r\n454 now\r\n"),
    ),
    "imap": (
        (b"", b"* OK [CAPABILITY IMAP4rev1] mail.example ready\r\n", b"* PREAUTH hello\r\n"),
        (b"1 STARTTLS\r\n", b"* CAPABILITY x\r\n1 OK go\r\n", b"1 BAD no\r\n"),
    ),
    "pop3": ((b"", b"+OK ready <1@mail.example>\r\n", b"-ERR no\r\n"), (b"STLS\r\n", b"+OK\r\n", b"-ERR no\r\n")),
    "ftp": ((b"", b"220-x\r\nany text\r\n220\r\n", b"421 full\r\n"), (b"AUTH TLS\r\n", b"234 go\n", b"502 no\r\n")),
    "xmpp": (
        (_HEADER, b"<?xml version='1.0'?><stream:stream id='1'>" + _OFFER, b"<stream:error>"),
        (_STARTTLS, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>",
         b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
    ),
    "ldap": (
        (
            b"\x30\x1d\x02\x01\x01" + _EXTENDED,
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
        ),
    ),
}  # fmt: skip
"""What servers are asked, with the answer that is expected, and another one."""

_names = st.sampled_from(sorted(PROTOCOLS))
_commands = st.binary(max_size=30) | st.sampled_from(
    [one for its in CLIENTS.values() for one, _ in its]
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def answered(name: str, parts: Iterable[bytes]) -> tuple[ClientDialogue, bytes]:
    dialogue, sent = begun(name, "mail.example ESMTP"), b""
    for part in parts:
        sent += dialogue.receive(part)
        if dialogue.then == "end":
            break
    return dialogue, sent


class ClientTests(SynchronousTestCase):
    @given(_names, st.lists(st.integers(0, 1000), max_size=20))
    def test_cuts(self, name: str, cuts: list[int]) -> None:
        requests, answers = zip(*CLIENTS[name], strict=True)
        dialogue, sent = answered(name, pieces(b"".join(requests), cuts))
        self.assertEqual((dialogue.then, dialogue.problem, sent), ("tls", "", b"".join(answers)))

    @given(_names, st.lists(_commands, max_size=30), st.lists(st.integers(0, 3000), max_size=20))
    def test_cuts_of_anything(self, name: str, commands: list[bytes], cuts: list[int]) -> None:
        data = b"".join(commands)
        whole, sent = answered(name, [data] if data else [])
        cut, sent_in_pieces = answered(name, pieces(data, cuts))
        self.assertEqual(cut.then, whole.then)
        self.assertTrue(sent_in_pieces.startswith(sent))
        self.assertTrue(whole.then == "end" or len(whole._rest) < LONGEST_COMMAND)

    @given(_names, st.binary(min_size=1), st.lists(st.integers(0, 1000), max_size=5))
    def test_nothing_behind_the_command_is_taken(self, name: str, added: bytes, cuts: Any) -> None:
        """CVE-2011-0411: what an attacker adds in the clear must not count as said inside TLS."""
        requests, answers = zip(*CLIENTS[name], strict=True)
        dialogue, sent = answered(name, [b"".join(requests) + added])
        self.assertEqual((dialogue.then, sent), ("end", b"".join(answers[:-1])))
        dialogue, _ = answered(name, pieces(b"".join(requests) + added, cuts))
        self.assertEqual(dialogue.then, "end")
        self.assertIn("behind STARTTLS", dialogue.problem)

    def test_what_clients_and_servers_say_first(self) -> None:
        """The element may have a prefix and a content, as any of XML."""
        space = b"urn:ietf:params:xml:ns:xmpp-tls"
        for element, then in (
            (b"<starttls xmlns='%s'><required/></starttls>", "tls"),
            (b"<starttls xmlns='%s'><required></required></starttls >", "tls"),
            (b'<t:starttls xmlns:t="%s"/>', "tls"),
            (b"<t:starttls a='b' xmlns:t='%s'><t:required/></t:starttls>", "tls"),
            (b"<starttls xmlns='%s'>", ""),
            (b"<required xmlns='%s'/>", "end"),
            (b"<starttls xmlns='x%s'/>", "end"),
            (b"<starttls xmlns:t='%s'/>", "end"),
            (b"<starttlsx xmlns='%s'/>", "end"),
        ):
            dialogue, _ = answered("xmpp", [_HEADER + element % space])
            self.assertEqual(dialogue.then, then, element)
        # The text of a server's greeting is shown to clients, without what is of that server or its connection.
        expected = {
            "smtp": ("mail.example ESMTP", b"220 mail.example ESMTP\r\n"),
            "imap": (
                "mail.example ready",
                b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] mail.example ready\r\n",
            ),
            "pop3": ("ready", b"+OK ready\r\n"),
            "ftp": ("x", b"220 x\r\n"),
        }
        for name in PROTOCOLS:
            noted: list[str] = []
            steps = begun(name).server_steps(noted.append, in_clear=True)
            if name not in expected:
                self.assertEqual((steps, begun(name).first), ((), b""))
                continue
            text, greeting = expected[name]
            [first] = steps
            first.length_of(SERVERS[name][0][1])
            self.assertEqual((noted, begun(name, text).first), ([text], greeting))
            self.assertTrue(begun(name).first.endswith(b"\r\n"))

    def test_client_leaves_or_says_too_much_or_something_else(self) -> None:
        for name, (request, answer) in {
            "smtp": (b"QUIT\r\n", b"221 2.0.0 Bye\r\n"),
            "imap": (b"a LOGOUT\r\n", b"* BYE logging out\r\na OK done\r\n"),
            "pop3": (b"QUIT\r\n", b"+OK\r\n"),
            "ftp": (b"QUIT\r\n", b"221 Bye\r\n"),
            "xmpp": (b"</stream:stream>", b"</stream:stream>"),
            "ldap": (b"\x30\x05\x02\x01\x07\x42\x00", b""),
        }.items():
            dialogue, sent = answered(name, [request])
            self.assertEqual((dialogue.then, dialogue.problem, sent), ("end", "", answer))
        for name, request, why in (
            ("smtp", b"NOOP\r\n" * MOST_COMMANDS, "it sent 20 commands without STARTTLS"),
            ("smtp", b"x" * LONGEST_COMMAND, "it sent a command of more than 4096 bytes"),
            ("ldap", b"\x30\x05\x02\x01\x07\x61\x00", "it sent a malformed message of LDAP"),
            ("ldap", b"\x16\x03\x01", r"it sent '\x16\x03\x01', which is no command"),
            ("xmpp", b"GET / HTTP/1.1\r\n", "it sent 'GET / HTTP/1.1', which is no command"),
            (
                "xmpp",
                b"<message/>",
                "it sent something else than a stream's header with 'to', and <starttls/>",
            ),
        ):
            dialogue, _ = answered(name, [request])
            self.assertEqual((dialogue.then, dialogue.problem), ("end", why))
        hello = b"\x16\3\1"
        for stream, rest, problem in (
            (b"EHLO a\r\nSTARTTLS\r\n" + hello, hello, ""), (hello, hello, ""),
            (b"STARTTLS\r\nMAIL FROM:<a>\r\n", b"", NOT_TLS),
            (b"NOOP\r\n" * 20, b"", "it sent 20 commands without STARTTLS"),
            (b"QUIT\r\n" + hello, b"", ""), (b"EHLO a\r\n", b"", ""),
        ):  # fmt: skip
            self.assertEqual(tls_of("smtp", stream), (rest, problem))
        for names in (CLIENTS, SERVERS, NAMES):
            self.assertEqual(set(names), set(PROTOCOLS))

    @given(_names, st.integers(1, 200))
    def test_answers(self, name: str, cut: int) -> None:
        dialogue, _ = answered(name, [request for request, _ in CLIENTS[name]])
        steps = dialogue.server_steps(lambda _: None, in_clear=False)
        for step, (request, answer, other) in zip(steps, SERVERS[name], strict=True):
            # The order of attributes is another one.
            self.assertEqual(sorted(step.request.split(b" ")), sorted(request.split(b" ")))
            self.assertEqual(step.length_of(answer[: min(cut, len(answer) - 1)]), 0)
            self.assertEqual(step.length_of(answer), len(answer))
            self.assertEqual(step.length_of(answer + b"more"), len(answer))
            self.assertRaises(RequestRefusedError, step.length_of, other)
            self.assertRaises(RequestRefusedError, step.length_of, b"SSH-2.0-x\r\n")
