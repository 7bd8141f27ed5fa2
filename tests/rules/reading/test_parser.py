import json
import re
from ipaddress import ip_network
from pathlib import Path

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS, FakePredicate
from tests.rules.reading.cases import FolderTestCase
from tests.support.folders import make_folder
from txmux.cli.fmt import laid_out, meaning
from txmux.detection.registry import installed_matchers
from txmux.interfaces import IProtocolMatcher, Peeked
from txmux.rules import model
from txmux.rules.embedding import route
from txmux.rules.lint.privileges import Privileges, missing_privileges
from txmux.rules.lint.warnings import closed_listeners, lint
from txmux.rules.packing import pack, unpack, unpack_in_steps
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import is_as_read, load, parse, read_again
from txmux.rules.reading.sections import TABLES

COMPLETE = """\
[listen public]
endpoint = tcp:443
# a client that says nothing waits for the server to speak
silent   = ssh-server
# bytes came, but no route matched
default  = close

[route ssh]
match   = ssh
backend = ssh-server

[backend ssh-server]
server = 127.0.0.1:22

[route site]
match   = tls sni=www.example.com,*.example.org
backend = web

[route redis]
match   = redis
from    = 10.0.0.0/8
backend = 127.0.0.1:6379

[backend web]
# nginx with `listen 8443 ssl proxy_protocol`
server         = 127.0.0.1:8443
proxy_protocol = v2
"""

LISTEN = "[listen public]\nendpoint = :443\n"


def read(text: str) -> model.Rules:
    return parse(text, "etc/rules.ini", MATCHERS)


def tcp(text: str) -> model.Server:
    host, _, port = text.rpartition(":")
    return model.Server(text, "tcp", host=host, port=int(port))


# Words that lead deep into the parser, between texts that do not.
SNIPPETS = st.sampled_from(
    [
        *("[listen a]", "[route b]", "[backend c]", "[txmux]", "\n", "\n  ", " = "),
        *("match", "endpoint", "server", "backend", "from", "include", "under"),
        *("access_log", "not tls sni=", "payload text=", "'", '"', "\\", ":443", "tcp:"),
        *("unix:", "[::1]:1", "c", "5s", "10.0.0.0/8", "#", ",", "silent"),
    ]
)
MAIN = """
[txmux]
include = more/*.ini, more/x.ini, more/*.ini
access_log = logs/access.log
workers = 2
[listen public]
endpoint =
    127.0.0.1:0
    # comments are left out

    :0
deny = @lists/deny.txt
allow = @more/../lists/deny.txt, 10.0.0.0/8
accept_proxy_from = unix, @lists/empty.txt
[route ssh]
match = ssh
    payload text="[listen x]"
    not tls
backend = inner
[route web]
match = http host=~(a|b)[.]example[.]com
from = 10.0.0.0/8, 192.0.2.1
    2001:db8::/32
backend = 127.0.0.1:80
"""
MORE = """
[route last]
match = any
backend = inner
not_from = @near.txt
during = mon-fri 08:00-18:00 Europe/Paris
    22:00-06:00
[route end]
match = tls
terminate_tls = a.pem, /dev/null
alpn = h2
[backend inner]
server = 127.0.0.1:22
    unix:/run/x.sock
"""
FAULT = "by a fault of its reader"
REQUIRED = {
    "listen": {"endpoint": ":1"}, "route": {"match": "ssh", "backend": "b"},
    "backend": {"server": "h:1"}, "txmux": {},
}  # fmt: skip
_TEXT = (
    "ssh tls sni=a.org sni= = not and || !ssh :443 127.0.0.1:22 h:1 [::1]:1 [fe80::1%x]:1 unix:/x udp:1 http://a/ "
    'https://h:1/x a.org,b.org , 10.0.0.0/8 10.* 10.0.0.1-10.0.0.9 all yes 5s 5sec 10k \' "x" ; #c ${X:-1} $PORT $$ web b '
    "close drop tcp6:1:interface=1.2.3.4 ssl:1:privateKey=k check inter weight=2 weight path=^/a path=~x http host=a|b "
    "tls( tls(x=y) \u2028 é mon-fri 08:00-09:00 20/s *:80 /x \\ {} listen a 0 1.3 h2 client reset"
)
# Blanks, lists with holes, and what is empty without what surrounds it.
_HOLES = "' '|'\t'|''|\"\"|[ ]|[,]|[x, ]|[x,,y]|['']|,|, ,|x, ,y|- |' ' ' '|\u3000|'\u00a0'|*|*,|* x|localhost:"
HOLES = _HOLES.split("|")
PIECES = [*_TEXT.split(" "), *HOLES]
KEYS = [(kind, key) for kind, keys in TABLES.items() for key in keys]


def rules_with(kind: str, key: str, value: str) -> str:
    text = ""
    for one, needed in REQUIRED.items():
        keys = {**needed, key: value} if one == kind else needed
        header = one if one == "txmux" else f"{one} {one[0]}"
        text += f"[{header}]\n" + "".join(f"{name} = {its}\n" for name, its in keys.items())
    return text


def problems_of(text: str) -> str:
    try:
        parse(text, "x.ini")
    except RulesError as error:
        return str(error)
    return ""


class ValueTests(SynchronousTestCase):
    def test_complete_small_file(self) -> None:
        """Routes keep their order, whatever stands between them."""
        ssh = model.Backend("ssh-server", (tcp("127.0.0.1:22"),))
        web = model.Backend("web", (tcp("127.0.0.1:8443"),), proxy_protocol="v2")
        redis = model.Backend("127.0.0.1:6379", (tcp("127.0.0.1:6379"),))
        clients = model.Clients(model.NetworkSet([ip_network("10.0.0.0/8")]))
        names = "www.example.com,*.example.org"
        plain = model.Alternative("ssh", FakePredicate("ssh"))
        sited = model.Alternative(f"tls sni={names}", FakePredicate("tls", (("sni", names),)))
        limited = model.Alternative("redis", FakePredicate("redis"))
        routes = (
            model.Route("ssh", (plain,), ssh),
            model.Route("site", (sited,), web),
            model.Route("redis", (limited,), redis, clients=clients),
        )
        listener = model.Listener("public", ("tcp:443",), silent=ssh, default=model.Refusal.CLOSE)
        expected_rules = model.Rules(
            path=Path("etc/rules.ini"),
            settings=model.Settings(),
            listeners=(listener,),
            routes=routes,
            backends={"ssh-server": ssh, "web": web},
        )
        self.assertEqual(read(COMPLETE), expected_rules)
        for text, expected in {
            "-": "-", "off": None, "a.log": Path("etc/a.log"), "/a.log": Path("/a.log"),
        }.items():  # fmt: skip
            rules = read(f"[txmux]\naccess_log = {text}\n{LISTEN}")
            self.assertEqual(rules.settings.access_log, expected)

    def test_blanks_and_holes_for_each_key(self) -> None:
        for kind, key in KEYS:
            for hole in HOLES:
                found = problems_of(rules_with(kind, key, hole))
                self.assertNotIn(FAULT, found)
                self.assertNotRegex(found, "did you mean '[ ']")

    def test_a_fault_of_one_reader_is_a_problem_of_its_line(self) -> None:
        class Faulty(dict[str, IProtocolMatcher]):
            def __missing__(self, key: str) -> IProtocolMatcher:
                raise IndexError(key)

        text = f"{LISTEN}[route a]\nmatch = x\nbackend = close\n[route b]\nmatch = ssh\nlog = 5\nbackend = close\n"
        error = self.assertRaises(RulesError, parse, text, "x", Faulty(MATCHERS))
        found = [(one.line, one.key) for one in error.problems]
        self.assertEqual(found, [(4, "match"), (8, "log")])
        self.assertIn(f"{FAULT} (IndexError", error.problems[0].message)
        (logged,) = self.flushLoggedErrors(IndexError)
        self.assertIn("__missing__", logged.getTraceback())

    @given(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from(PIECES), max_size=4),
        st.sampled_from(["", " ", ", ", "\n  "]),
    )
    def test_rules_or_problems_and_the_same_laid_out(
        self, place: tuple[str, str], pieces: list[str], joint: str
    ) -> None:
        text = rules_with(*place, joint.join(pieces))
        try:
            rules = parse(text, "x.ini")
        except RulesError as error:
            self.assertTrue(all(problem.message for problem in error.problems))
            self.assertNotIn(FAULT, str(error))
        else:
            self.assertIsInstance(rules, model.Rules)
            nothing = Privileges(1000, 1024, lambda _path, _mode: False)
            for found in (lint(rules), closed_listeners(rules), missing_privileges(rules, nothing)):
                self.assertTrue(all(problem.message for problem in found))
            after = laid_out(text)
            self.assertEqual((meaning(after), laid_out(after)), (meaning(text), after))


class AnyTextTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make an empty folder, so that no pattern finds anything."""
        self.folder = make_folder(self)

    @given(st.one_of(st.text(), st.lists(st.one_of(SNIPPETS, st.text(max_size=3))).map("".join)))
    @example("0\n0\n0\n0")
    def test_rules_or_all_problems(self, text: str) -> None:
        path = f"{self.folder}/rules.ini"
        try:
            rules = parse(text, path, MATCHERS)
        except RulesError as error:
            lines = [problem.line for problem in error.problems]
            self.assertEqual(lines, sorted(lines))
            told = r"\(the same in (\d+) more lines: [\d, ]+(?: …)?\)$"
            folded = re.findall(told, str(error), re.MULTILINE)
            self.assertEqual(len(str(error).splitlines()) + sum(map(int, folded)), len(lines))
        else:
            self.assertTrue(rules.listeners)


class AgainTest(FolderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.main.write_text(MAIN)
        self.files = [
            self.write("more/x.ini", MORE),
            self.write("lists/deny.txt", "# a list\n192.0.2.0/24\n2001:db8::/32 ; another\n"),
            self.write("lists/empty.txt", "# nothing yet\n"),
            self.write("a.pem", ""),
        ]
        self.write("more/near.txt", "192.0.2.1")

    def test_same_rules_though_files_have_changed(self) -> None:
        rules = load(self.main)
        for path in self.files:
            path.unlink()
        self.main.write_text("")
        self.assertTrue(is_as_read(rules))
        sent = json.loads(json.dumps(attrs.asdict(rules.files)))
        for again in (read_again(model.Files(**sent)), unpack(pack(rules))):
            self.assertEqual((again.settings, again.listeners), (rules.settings, rules.listeners))
            self.assertEqual(again.backends, rules.backends)
            for one, other in zip(again.routes, rules.routes, strict=True):
                told = attrs.evolve(one, alternatives=())
                self.assertEqual(told, attrs.evolve(other, alternatives=()))
                shown = [(a.text, a.negated) for a in one.alternatives]
                self.assertEqual(shown, [(a.text, a.negated) for a in other.alternatives])
                for found, made in zip(one.alternatives, other.alternatives, strict=True):
                    for data in (b"SSH-2.0-x", b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"):
                        peeked = Peeked(data)
                        self.assertIs(found.predicate(peeked), made.predicate(peeked))

    def test_steps_of_expressions(self) -> None:
        """Other processes build one at a time, since each may take a while; of usual routes, many are one step."""
        for line, least, most in (
            ("regex pattern={}", 60, 70),
            ("tls sni=~a{}", 60, 70),
            ("tls sni=a{}", 1, 6),
        ):
            routes = "".join(
                f"[route r{n}]\nmatch = {line.format(n)}\nbackend = close\n" for n in range(60)
            )
            steps = sum(
                1 for _ in unpack_in_steps(pack(parse(f"[listen a]\nendpoint = :1\n{routes}", "x")))
            )
            self.assertIn(steps, range(least, most), line)

    def test_what_is_not_read_again(self) -> None:
        """Lines of rules in use are not, nor rules that were made in Python; other processes do not have the matchers of a program, though its rules were read last, and from a file."""
        first, other = (unpack(pack(parse(COMPLETE, "x"))) for _ in range(2))
        for one, again in zip(first.routes, other.routes, strict=True):
            for line, same in zip(one.alternatives, again.alternatives, strict=True):
                self.assertIs(line, same)
        rules = load(self.main)
        changed = [
            attrs.evolve(rules, files=model.Files()),
            attrs.evolve(rules, routes=(*rules.routes, route("any", "close"))),
            attrs.evolve(rules, settings=attrs.evolve(rules.settings, drain_timeout=1.0)),
        ]
        self.assertEqual([is_as_read(one) for one in changed], [False] * 3)
        self.main.write_text("[listen a]\nendpoint = :1\n[route r]\nmatch = own\nbackend = close\n")
        rules = load(self.main, {"own": installed_matchers()["ssh"]})
        self.assertFalse(is_as_read(rules))
        self.assertRaises(RulesError, read_again, rules.files)
