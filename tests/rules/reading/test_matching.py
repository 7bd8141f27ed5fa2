"""Tests of the lines of ``match =``."""

from collections.abc import Mapping
from typing import Any, cast
from unittest import SkipTest

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.rules.fakes import MATCHERS, FakeMatcher, FakePredicate
from tests.rules.reading.cases import ReadingTestCase
from txmux.detection.registry import PluginProblem, Registry, installed_matchers
from txmux.interfaces import IProtocolMatcher, Option
from txmux.rules.advice.matching import MEANT, SERVER_FIRST
from txmux.rules.model import Alternative
from txmux.rules.optional import missing
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.parser import parse

_BEGINS_NOTHING = ":7: [route r] match: who says nothing begins neither TLS nor a tunnel"


@implementer(IProtocolMatcher)
class Malformed:
    name = "bad"
    summary = "for tests"

    @property
    def options(self) -> tuple[Option, ...]:
        raise ZeroDivisionError("no options")

    def predicate(self, options: Mapping[str, str]) -> Any:
        """Make none."""


@implementer(IProtocolMatcher)
@attrs.frozen
class Making:
    made: Any
    name: str = "bad"
    summary: str = "for tests"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Any:
        return self.made


@attrs.frozen
class Uncalled:
    longest: int = 1


class ReadingTests(SynchronousTestCase):
    def test_matcher_alone(self) -> None:
        self.assertEqual(
            read_alternative("ssh", MATCHERS), Alternative("ssh", FakePredicate("ssh"))
        )

    def test_options_reach_the_plugin_as_text(self) -> None:
        line = 'tls  sni="www.example.com,*.example.org" alpn='
        self.assertEqual(
            read_alternative(line, MATCHERS),
            Alternative(
                line, FakePredicate("tls", (("sni", "www.example.com,*.example.org"), ("alpn", "")))
            ),
        )

    def test_not(self) -> None:
        self.assertEqual(
            read_alternative("not tls", MATCHERS),
            Alternative("not tls", FakePredicate("tls"), negated=True),
        )

    def test_backslashes_reach_the_plugin(self) -> None:
        found = read_alternative(r"payload text=PING\r\n\x00=", MATCHERS)
        self.assertEqual(found.predicate, FakePredicate("payload", (("text", r"PING\r\n\x00="),)))


class ProblemTests(SynchronousTestCase):
    def complaints(self, line: str) -> tuple[str, ...]:
        error: InvalidValueError = self.assertRaises(
            InvalidValueError, read_alternative, line, MATCHERS
        )
        return error.messages

    def refuses(self, line: str, *told: str) -> None:
        self.assertEqual(self.complaints(line), told)

    def test_unknown_matcher(self) -> None:
        there_are = "(there are any, broken, payload, picky, redis, ssh, tls)"
        for line, message in {
            "sssh": f"unknown matcher 'sssh'; did you mean 'ssh'? {there_are}",
            "not TLS sni=x": f"unknown matcher 'TLS'; did you mean 'tls'? {there_are}",
            "quux": f"unknown matcher 'quux' {there_are}",
            "!ssh": "unknown matcher '!ssh'; write 'not ssh'",
            "!": "unknown matcher '!'; write 'not tls'",
            "HTTPS": "unknown matcher 'HTTPS'; write 'tls'",
            "websocket": "unknown matcher 'websocket'; write 'http upgrade=websocket'",
            "tsl": f"unknown matcher 'tsl'; did you mean 'tls'? {there_are}",
            "jabber": "unknown matcher 'jabber'; write 'xmpp'",
            "h2": "unknown matcher 'h2'; write 'tls alpn=h2'",
            "http3": "unknown matcher 'http3'; write 'quic alpn=h3'",
            "not udp": "unknown matcher 'udp'; write 'any'",
            "silence": "unknown matcher 'silence'; write 'silent'",
            "''": f"unknown matcher '' {there_are}",
        }.items():
            self.refuses(line, message)

    def test_nearest_names_commonest_first(self) -> None:
        known = installed_matchers()
        for name, meant in {
            "tsl": "'tls'", "htpt": "'http'", "rtp": "'rdp', 'rtmp' or 'rtsp'", "dtl": "'dtls'",
            "shs": "'ssh'", "rediss2": "'redis'", "sock5": "'socks5'",
        }.items():  # fmt: skip
            error = self.assertRaises(
                InvalidValueError,
                read_alternative,
                name,
                {one: known[one] for one in known if one != name},
            )
            self.assertIn(f"unknown matcher '{name}'; did you mean {meant}?", str(error))

    def test_what_others_write(self) -> None:
        """What is named instead of another word is a line that can be written, and the word is no matcher."""
        known = installed_matchers()
        for word, meant in MEANT.items():
            self.assertNotIn(word, known)
            read_alternative(meant, known)
        self.assertEqual([*SERVER_FIRST & known.keys()], [])

    def test_no_matchers(self) -> None:
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh", {})
        self.assertEqual(str(error), "unknown matcher 'ssh' (there are none)")

    def test_server_speaks_first(self) -> None:
        for name in ("mysql", "smtp", "imap", "pop3", "FTP", "vnc", "nats", "mariadb", "lmtp"):
            (message,) = self.complaints(name)
            self.assertIn("write 'silent'", message)

    def test_silence_takes_a_time_and_nobody_who_speaks(self) -> None:
        known = installed_matchers()
        times = [
            read_alternative(text, known).silent_after
            for text in ("silent", "silent after=2m", "any")
        ]
        self.assertEqual(times, [0.0, 120.0, None])
        for line, why in {
            "not silent": "every client that says something is not silent; write 'any'",
            "silent after=5": "silent after: '5' is not a duration; ",
            "silent after=0s": "silent after: must be more than 0; ",
            "silent for=5s": "unknown option 'for' (silent takes after=)",
        }.items():
            with self.assertRaises(InvalidValueError) as caught:
                read_alternative(line, known)
            self.assertIn(why, str(caught.exception))

    def refused_silence(self, keys: str) -> str:
        listen = "[listen a]\nendpoint = :1\n[listen u]\nendpoint = udp:127.0.0.1:1\n[route r]\nmatch = tls\n  silent\n"
        with self.assertRaises(RulesError) as caught:
            parse(listen + keys, "x.ini")
        return str(caught.exception)

    def test_silence_of_what_begins_tls_or_is_a_flow(self) -> None:
        self.assertIn(_BEGINS_NOTHING, self.refused_silence("terminate_tls = x.pem\n"))
        self.assertIn(
            "'tls' and 'silent' work only over TCP, but [listen u] uses UDP",
            self.refused_silence("under = u\nbackend = udp:h:1\n"),
        )

    def test_silence_of_what_begins_a_tunnel(self) -> None:
        if why := missing("tunnel"):
            raise SkipTest(why)
        self.assertIn(_BEGINS_NOTHING, self.refused_silence("tunnel = yes\n"))

    def test_one_mistake(self) -> None:
        for line, message in {
            "not": "names no matcher after 'not'; write for example 'not tls'",
            "any x=1": "unknown option 'x' (any takes no options)",
            "tls host=a": "unknown option 'host' (tls takes sni=, alpn=)",
            "picky port=bad": "picky port: must be good",
            "picky": "picky needs port=",
            "broken": "the matcher 'broken' failed: ZeroDivisionError: oh; report it to its author, and do without it until then",
        }.items():
            self.refuses(line, message)

    def test_all_wrong_options_at_once(self) -> None:
        self.refuses(
            "tls sin=a sni=a sni=b h2 x=1",
            "unknown option 'sin'; did you mean 'sni'? (tls takes sni=, alpn=)",
            "option 'sni' is given twice; keep one",
            "unknown option 'x' (tls takes sni=, alpn=)",
            "'h2' is not an option; write OPTION=VALUE, a value with blanks in quotes (tls takes sni=, alpn=)",
        )

    def test_malformed_plugin(self) -> None:
        fake: Any = FakeMatcher
        option, predicate = (
            Option(cast("Any", 7), "", ""),
            FakePredicate("x", longest=cast("Any", 1.5)),
        )
        for words, matcher in {
            "ZeroDivisionError: no options": Malformed(),
            "AttributeError: 'str' object has no attribute 'name'": fake("bad", options=("text",)),
            "TypeError: 'NoneType' object is not iterable": fake("bad", options=None),
            "the name of an option is 7, not text": fake("bad", options=(option,)),
            "its predicate Uncalled(longest=1) cannot be called": Making(Uncalled()),
            "AttributeError: 'NoneType' object has no attribute 'longest'": Making(None),
            "AttributeError: 'builtin_function_or_method' object has no attribute 'longest'": Making(
                len
            ),
            "its predicate's 'longest' is 1.5, not a whole number": Making(predicate),
        }.items():
            error = self.assertRaises(InvalidValueError, read_alternative, "bad", {"bad": matcher})
            self.assertEqual(
                str(error),
                f"the matcher 'bad' failed: {words}; report it to its author, and do without it until then",
            )

    def test_open_quote(self) -> None:
        self.assertIn("a quote is not closed", self.complaints("payload text='a")[0])

    def test_claimed_twice(self) -> None:
        problem = PluginProblem("'ssh' is there 2 times; uninstall one", "ssh")
        registry = Registry({"tls": MATCHERS["tls"]}, (problem,))
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh software=x", registry)
        self.assertEqual(error.messages, (problem.message,))
        self.assertEqual(read_alternative("tls", registry).predicate, FakePredicate("tls"))


class HintTests(ReadingTestCase):
    def refuses_match(self, line: str, *told: str) -> None:
        self.refuses(f"{self.listen}[route r]\nmatch = {line}\nbackend = close\n", *told)

    def test_options_that_are_none(self) -> None:
        for line, meant in {
            "tls sni = a": "tls sni=a",
            "tls sni=a , b, c alpn= h2": "tls sni=a,b,c alpn=h2",
        }.items():
            self.refuses_match(line, f"4 match: no blanks around '=' and ','; write {meant}")
        for line in ("ssh tls", "ssh, tls"):
            self.refuses_match(line, "4 match: takes one a line; write ssh, the others below it")

    def test_no_matcher(self) -> None:
        for line, hint in {
            "sni=a.example": "the matcher comes first, as in 'tls sni=www.example.com'",
            "anyprot": "write 'any'",
            "req.ssl_sni": "write 'tls sni=www.example.com'",
            "host": "write 'http host=www.example.com'",
            "https": "write 'tls'",
        }.items():
            self.refuses_match(line, f"4 match: unknown matcher {line!r}; {hint}")

    def test_colon(self) -> None:
        for line, meant in (
            ("match: ssh", "match = ssh"),
            ("match : tls sni=a.example", "match = tls sni=a.example"),
            ("match:", "match = ssh"),
            ("match:=ssh", "match = ssh"),
        ):
            self.refuses(
                f"{self.listen}[route r]\n{line}\nbackend = close\n",
                f"4 : a key is followed by '=', not ':'; write {meant!r}",
            )

    def test_comment_behind_a_value(self) -> None:
        message = "a comment needs its own line; put '# the ssh, and tls route' above this one"
        self.refuses_match("ssh  # the ssh, and tls route", f"4 match: {message}")
        self.refuses(
            f"{self.listen}allow = 10.0.0.0/8, ::1 # the ssh, and tls route\n",
            f"3 allow: {message}",
        )
        self.refuses(
            f"{self.listen}[backend b]\nserver = a:1 # the ssh, and tls route\n",
            f"4 server: {message}",
        )

    def test_comment_behind_a_wrong_value(self) -> None:
        self.refuses_match(
            "ssh sofware=x ; old",
            "4 match: a comment needs its own line; put '; old' above this one",
            "4 match: unknown option 'sofware'; did you mean 'software'? (ssh takes software=)",
        )

    def test_hash_in_a_value(self) -> None:
        self.read(f"{self.listen}[route r]\nmatch = ssh software='a #b'\nbackend = close\n")

    def test_several_servers(self) -> None:
        for servers in ("a:1, b:2", "a:1,b:2"):
            self.refuses(
                f"{self.listen}[backend b]\nserver = {servers}\n",
                "4 server: takes one a line; write a:1, the others below it",
            )
            self.refuses(
                f"{self.listen}default = {servers}\n",
                f"3 default: '{servers}': several servers, and options of a server, need a [backend]; "
                "write one with them, and its name here",
            )

    def test_broken_expression(self) -> None:
        text = (
            f"{self.listen}[route r]\nmatch = regex pattern=(ab\n tls sni=~(ab\nbackend = close\n"
        )
        with self.assertRaises(RulesError) as caught:
            parse(text, "x.ini")
        said = "'(ab' is not a regular expression: missing ), unterminated subpattern at position 0"
        self.assertEqual(
            str(caught.exception).splitlines(),
            [
                f"x.ini:4: [route r] match: regex pattern: {said}",
                f"x.ini:5: [route r] match: tls sni: {said}",
            ],
        )
