"""Rules that are read again: what has not changed is taken over, and all is as if it had been read for the first time."""

import ipaddress
import itertools
import os
from collections.abc import Sequence

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.support.folders import make_folder
from tests.support.growth import AT_ALL, MANY, RULES
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading import parser
from txmux.rules.reading.parser import load, read_again
from txmux.testing import steps_in

_FINE: dict[str, Sequence[str]] = {
    "outer": (
        "match = tls\nterminate_tls = key.pem\nbackend = one",
        "match = tls\nterminate_tls = key.pem\ntls_client_ca = ca.pem\nbackend = one",
        "match = http method=CONNECT\ntunnel = yes\nbackend = one",
    ),
    "route": (
        "match = ssh\nbackend = one", "match = tls sni=a.test\nbackend = two",
        "match = any\nbackend = 127.0.0.1:22",
        "match = http\n# a comment\nbackend = 127.0.0.1:22\nunder = p",
        "match = any\nbackend = 127.0.0.1:23\nfrom = @nets",
        "match = http\nbackend = reject\nunder = a", "match = ssh\nbackend = ${PLACE}",
        "match = ssh\nbackend = two\ndry_run = yes",
        "match = telnet\nbackend = one\nnot_from = @nets",
    ),
    "backend": (
        "server = 127.0.0.1:1",
        "server = 127.0.0.1:2\nfallback = 127.0.0.1:22",
        "server =\n    127.0.0.1:4\n    127.0.0.1:5\nfallback = three",
        "server = srv:_a._tcp.a.test",
    ),
    "listen": (
        "endpoint = 127.0.0.1:1001",
        "endpoint = 127.0.0.1:1002\ndefault = one",
        "endpoint = 127.0.0.1:1004\nsilent = two\ndeny = @nets",
    ),
}  # fmt: skip
_WRONG = (
    ("route x", "match = http\nbackend = one\nclient_cert = any\nunder = a"),
    ("route x", "match = ssh\nbackend = udp:127.0.0.1:9"),
    ("route x", "match = ssh\nbackend = handover:/run/x.sock\nunder = a"),
    ("route x", "match = ssh\nbackend = handover:/run/x.sock"),
    ("route x", "match = ssh\nbackend = 127.0.0.1:1001"),
    ("route x", "match = ssh\nbackend = x"),
    ("route b", "match = ssh\nbackend = one"),
    ("route x", "match = ssh\nbackend = ssl:127.0.0.1:9:privateKey=none.pem"),
    ("backend three", "server = 127.0.0.1:6\nfallback = one"),
    ("backend x", "server = udp:127.0.0.1:3"),
    ("listen x", "endpoint = udp:127.0.0.1:1003"),
    ("listen x", "endpoint = 127.0.0.1:1002"),
    ("listen x", "endpoint = 127.0.0.1:1005\ndefault = handover:/run/y.sock"),
)
"""What may be wrong, according to what is beside it."""
_SETTINGS = (
    "", "workers = 2\n", "resolvers = 192.0.2.1\n", "relay = portable\n", "drain_timeout = 3s\n",
)  # fmt: skip
_COMMENTS = ("", "# a comment\n", "\n\n", "  [ x\n", "; [route z]\n")


@st.composite
def _versions(draw: st.DrawFn) -> dict[str, str]:
    named = [
        ("backend", "one"), ("backend", "two"), ("listen", "p"), ("outer", "a"),
        *(("route", name) for name in draw(st.sampled_from(("", "b", "bc", "cbd")))),
    ]  # fmt: skip
    kinds = ((kind.replace("outer", "route"), kind, name) for kind, name in named)
    sections = [(f"{as_} {name}", draw(st.sampled_from(_FINE[kind]))) for as_, kind, name in kinds]
    sections.append(("backend three", "server = 127.0.0.1:3"))
    if draw(st.integers(0, 3)) == 3:
        sections.append(draw(st.sampled_from(_WRONG)))
    order = draw(st.permutations(sections)) if draw(st.booleans()) else sections
    comments = draw(st.lists(st.sampled_from(_COMMENTS[:3]), min_size=3, max_size=3))
    texts = [f"[{header}]\n{text}\n" for header, text in order]
    more = draw(st.integers(0, min(2, len(texts))))
    written = draw(st.sampled_from(_SETTINGS))
    head = f"[txmux]\naccess_log = off\n{written}include = *.inc\n"
    return {
        "rules.ini": comments[0] + head + "".join(f"{comments[1]}{text}" for text in texts[more:]),
        "more.inc": comments[2] + "".join(texts[:more]),
        "nets": draw(st.sampled_from(("192.0.2.0/24\n", "192.0.2.0/25\n"))),
        "PLACE": draw(st.sampled_from(("one", "127.0.0.1:22"))),
    }


def _described(rules: Rules) -> object:
    lines = [
        (
            section.path, section.header, rules.line_of(section),
            [
                rules.placed(section.problem(item.text, entry.key, number)).line
                for entry in section.entries.values()
                for number, item in enumerate(entry.items)
            ],
            [(key, [item.text for item in entry.items]) for key, entry in section.entries.items()],
        )
        for section in rules.sections
    ]  # fmt: skip
    routes = [
        (attrs.evolve(one, alternatives=()), [line.text for line in one.alternatives])
        for one in rules.routes
    ]
    plain = (rules.settings, rules.listeners, routes, [*rules.backends.items()])
    included = {name: [*paths] for name, paths in rules.files.included.items()}
    files = [*rules.files.texts.items()], included, rules.files.variables
    backends = [(one.name, one.section.line > 0) for one in rules.every_backend()]
    return plain, lines, files, backends, [str(problem) for problem in lint(rules)]


class ReadingAgainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        parser.last_read = None

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
        for name in ("key.pem", "ca.pem"):
            (self.folder / name).touch()
        os.environ["PLACE"] = files.get("PLACE", "one")
        self.addCleanup(os.environ.pop, "PLACE", None)

    def read(self) -> object:
        try:
            rules = load(self.folder / "rules.ini", are_pem_files_there=False)
        except RulesError as error:
            return [str(problem) for problem in error.problems]
        return _described(rules)

    def read_anew(self) -> object:
        kept, parser.last_read = parser.last_read, None
        try:
            return self.read()
        finally:
            parser.last_read = kept

    @settings(max_examples=scaled(300), deadline=None)
    @given(versions=st.lists(_versions(), min_size=2, max_size=4))
    def test_any_versions(self, versions: Sequence[dict[str, str]]) -> None:
        parser.last_read = None
        for version in versions:
            self.write(version)
            self.assertEqual(self.read(), self.read_anew())

    @settings(max_examples=scaled(200), deadline=None)
    @given(version=_versions(), data=st.data())
    def test_any_edit(self, version: dict[str, str], data: st.DataObject) -> None:
        """A line comes, goes or moves, wherever, and another time one comes back."""
        parser.last_read = None
        self.write(version)
        self.assertEqual(self.read(), self.read_anew())
        for _ in range(3):
            name = data.draw(st.sampled_from(("rules.ini", "more.inc")))
            lines = version[name].splitlines(keepends=True)
            at = data.draw(st.integers(0, len(lines)))
            gone = data.draw(st.integers(0, 1))
            come = data.draw(st.sampled_from((*_COMMENTS, *lines, "log = no\n")))
            self.write({**version, name: "".join([*lines[:at], come, *lines[at + gone :]])})
            self.assertEqual(self.read(), self.read_anew())

    def test_what_values_depend_on(self) -> None:
        """A section that reads the same is read again if something else that it depends on has changed."""
        text = """[txmux]
access_log = off
resolvers = 192.0.2.1
[listen p]
endpoint = 127.0.0.1:1001
[backend one]
server = server.test:1
[backend two]
server = 127.0.0.1:2
fallback = one
[route a]
match = tls
terminate_tls = key.pem
tls_client_ca = ca.pem
[route b]
match = http
client_cert = any
backend = two
under = a
[route c]
match = ssh
backend = ${PLACE}
[route d]
match = telnet
backend = 127.0.0.1:1002
from = @nets
[route e]
match = redis
backend = 127.0.0.1:1003
"""
        handed = "127.0.0.1:1003", "handover:/run/x.sock"
        for old, new in (
            ("192.0.2.1\n", "192.0.2.2\n"),
            ("server.test:1", "server.test:3"),
            ("[backend one]\nserver = server.test:1\n", ""),
            ("tls_client_ca = ca.pem\n", ""),
            ("terminate_tls = key.pem\ntls_client_ca = ca.pem", "backend = two"),
            ("127.0.0.1:1001", "127.0.0.1:1002"),
            ("127.0.0.1:1001", "unix:/run/y.sock"),
            ("[listen p]", "[listen a]"),
            ("127.0.0.1:1003", "127.0.0.1:1001"),
            handed,
            ("[route d]", "[route d]\nmatch = ssh\nbackend = one\n[route d]"),
            ("[route e]", "[route d]\nmatch = ssh\nbackend = one\n[route e]"),
            ("[backend one]", "# a comment\n[backend three]\nserver = 127.0.0.1:9\n[backend one]"),
        ):
            self.assert_read_again(text, old, new)
        for old, new in (
            ("resolvers = 192.0.2.1", "relay = portable"),
            ("match = telnet", "match = postgres sni=a.test"),
            ("127.0.0.1:1001", "unix:/run/y.sock"),
            (*handed[::-1],),
        ):
            self.assert_read_again(text.replace(*handed), old, new)
        files = {"rules.ini": text, "nets": "192.0.2.0/24\n"}
        self.write({**files, "nets": "198.51.100.0/24\n"})
        self.assertEqual(self.read(), self.read_anew())
        self.write({**files, "rules.ini": f"# again\n{text}", "PLACE": "two"})
        self.assertEqual(self.read(), self.read_anew())

    def assert_read_again(self, text: str, old: str, new: str) -> None:
        files = {"rules.ini": text, "nets": "192.0.2.0/24\n"}
        self.write(files)
        before = self.read()
        self.assertIsInstance(before, tuple, str(before))
        self.write({**files, "rules.ini": text.replace(old, new)})
        after = self.read()
        self.assertNotEqual(before, after, (old, new))
        self.assertEqual(after, self.read_anew(), (old, new))

    def test_short_forms_are_shared_and_files_of_endpoints_looked_for(self) -> None:
        """A server that routes name without a section is one backend, also in a new route; a file that an endpoint names is looked for again, also where nothing else has changed."""
        text = f"[listen p]\nendpoint = ssl:1:privateKey={self.folder}/key.pem\n"
        self.write({"rules.ini": text})
        self.assertIsInstance(self.read(), tuple)
        (self.folder / "key.pem").unlink()
        (self.folder / "rules.ini").write_text(f"# again\n{text}")
        self.assertIn("cannot read", str(self.read()))
        text = RULES["routes"](2)
        self.write({"rules.ini": text})
        first = load(self.folder / "rules.ini").routes[0]
        self.write({"rules.ini": text.replace("127.0.0.1:10001", "127.0.0.1:10000")})
        again = load(self.folder / "rules.ini").routes
        self.assertIs(again[0], first)
        self.assertIs(again[1].outcome, first.outcome)
        # What reads the same is the same object, wherever it stands now.
        text = RULES["backends"](20)
        self.write({"rules.ini": text})
        path = self.folder / "rules.ini"
        before = load(path)
        self.write({"rules.ini": f"# first\n{text.replace('sni=h7.', 'sni=x7.')}"})
        after = load(path)
        both = zip(before.routes, after.routes, strict=True)
        self.assertEqual([one.name for one, two in both if one is not two], ["r7"])
        self.assertTrue(all(after.backends[name] is one for name, one in before.backends.items()))
        self.assertIs(after.listeners[0], before.listeners[0])
        self.assertIs(after.settings, before.settings)
        last = after.routes[-1].section
        found = (before.line_of(last) + 1, after.line_of(last))
        self.assertEqual(found, (after.line_of(last), last.line + 1))

    def test_list_that_was_updated_meanwhile(self) -> None:
        """What has come into a list since it was read is not kept for what its file says now."""
        text = f"[listen p]\nendpoint = 127.0.0.1:1\ndeny = @nets\n{RULES['routes'](1)}"
        text = text.replace("[listen public]\nendpoint = 127.0.0.1:1\n", "")
        path = self.folder / "rules.ini"
        readers = (lambda _: load(path), lambda rules: read_again(rules.files))
        for read, first in itertools.product(readers, ("# again\n", "")):
            with self.subTest(by_path=read is readers[0], first=first):
                self.write({"rules.ini": text, "nets": "192.0.2.0/24\n"})
                rules = load(path)
                [listener] = rules.listeners
                assert listener.clients.excluded is not None
                [dynamic] = listener.clients.excluded.dynamic
                dynamic.contents = type(listener.clients.excluded)([])
                self.write({"rules.ini": f"{first}{text}", "nets": "192.0.2.0/24\n"})
                [again] = read(rules).listeners
                assert again.clients.excluded is not None
                self.assertIsNot(again, listener)
                self.assertIn(ipaddress.ip_address("192.0.2.1"), again.clients.excluded)

    def test_steps(self) -> None:
        """One changed line costs a small part of reading all, and what it costs grows with the number of sections at most."""
        taken = {}
        for count in (MANY, 2 * MANY):
            parser.last_read = None
            path = self.folder / "rules.ini"
            self.write({"rules.ini": RULES["routes"](count)})
            whole = steps_in(lambda path=path: load(path))  # type: ignore[misc]
            self.write({"rules.ini": RULES["routes"](count).replace("sni=h7.", "sni=x7.")})
            taken[count] = steps_in(lambda path=path: load(path))  # type: ignore[misc]
            self.assertLess(taken[count], whole / 10)
        self.assertLess(taken[2 * MANY] / taken[MANY], AT_ALL)
