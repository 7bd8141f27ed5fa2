"""Frontends that chance has written, served by HAProxy and by txmux: whatever has no ``# LOOK:`` is served alike."""

import itertools
import random
import re
from pathlib import Path

from tests.interop.converted.sidebyside import SideBySideTestCase, first_bytes
from tests.interop.originals import HALF_HELLO, said_at_once
from tests.support.kit import family_of, make_certificate

_COUNT = 120
_AT_ONCE = 100
_DEFAULTS = """
defaults
    mode tcp
    timeout connect 3m
    timeout client 3m
    timeout server 3m
"""
_ACLS = """
    acl ssl req_ssl_hello_type 1
    acl x req_ssl_sni x.example
    acl lan src 127.0.0.2
    acl pay req.payload(0,3) -m bin 474554
    acl other req.payload(0,1) -m bin 00
    acl other req.payload(0,1) -m bin 01
    acl some req.len gt 0
    acl get method GET
    acl host hdr(host) -i a.example
    acl ssh payload(0,7) -m bin 5353482d322e30
    acl vpn req.payload(2,1) -m bin 38
    acl named req.ssl_sni -m found
    acl begun req.ssl_sni -m beg mail. imap.
    acl ended req_ssl_sni -m end .zone.example
    acl part req.ssl_sni -m sub staging
    acl number req.ssl_sni -m reg ^node[0-9]+\\.example$
    acl two req.ssl_alpn h2
    acl one req.ssl_alpn http/1.1
"""
_TESTS = (*re.findall("acl ([a-z]+)", _ACLS), "HTTP", "METH_POST")
_CLIENTS = (
    *(b"GE", HALF_HELLO),
    *map(first_bytes, ("silent", "http", "post", "ssh", "openvpn", "binary", "hello")),
    *map(first_bytes, ("hello x.example alpn=h2,http/1.1", "hello mail.example alpn=http/1.1")),
    *map(first_bytes, ("hello a.zone.example", "hello my-staging.zone.example alpn=x")),
    *map(first_bytes, ("hello node12.example alpn=h2", "hello node.example")),
)
_SOURCES = ("127.0.0.1", "127.0.0.2")
_BACKENDS = ("a", "b", "c")


class Writer:
    def __init__(self) -> None:
        self._random = random.Random(11)

    def frontend(self, number: int) -> str:
        choice = self._random.choice
        lines = [
            f"frontend f{number}\n    bind 127.0.0.1:<port{number}>",
            "    tcp-request inspect-delay 400ms",
            # So that nothing depends on what has arrived when HAProxy looks.
            "    tcp-request content reject if WAIT_END FALSE",
            _ACLS,
        ]
        for _ in range(choice((0, 0, 0, 1))):
            layer, action = choice(("connection", "session")), choice(("accept", "reject"))
            lines.append(f"    tcp-request {layer} {action} {choice(('if', 'unless'))} lan")
        lines += self._content(choice((0, 0, 1, 2)))
        for _ in range(choice((0, 1, 2, 3))):
            lines.append(f"    use_backend {choice(_BACKENDS)}{number} {self._condition()}")
        if choice((True, True, True, False)):
            lines.append(f"    default_backend {choice(_BACKENDS)}{number}")
        for name in _BACKENDS:
            lines.append(f"backend {name}{number}")
            if name == "c":
                lines += [_ACLS, *self._content(1)]
            lines.append(f"    server s <{name}>")
        return "\n".join([*lines, ""])

    def _content(self, count: int) -> list[str]:
        actions = ("accept", "reject", "reject")
        made = ((self._random.choice(actions), self._condition()) for _ in range(count))
        return [f"    tcp-request content {action} {condition}" for action, condition in made]

    def _condition(self) -> str:
        choice = self._random.choice

        def group() -> str:
            some = range(choice((1, 1, 2)))
            return " ".join(choice(("", "", "!")) + choice(_TESTS) for _ in some)

        groups = [group() for _ in range(choice((1, 1, 1, 2)))]
        return f"{choice(('if', 'if', 'if', 'unless'))} {' or '.join(groups)}"


class RandomTests(SideBySideTestCase):
    program = "haproxy"

    def test_alike(self) -> None:
        writer = Writer()
        texts = [writer.frontend(number) for number in range(_COUNT)]
        self.start(_DEFAULTS + "".join(texts))
        sure = [n for n in range(_COUNT) if not self.has_looks(texts[n])]
        self.assertGreater(len(sure), _COUNT / 4)
        asked = [(n, data, source) for n in sure for data in _CLIENTS for source in _SOURCES]
        processes = [*family_of(self.original.pid), self.txmux.pid]
        heard: list[list[str]] = [[], []]
        for number, begin in itertools.product((0, 1), range(0, len(asked), _AT_ONCE)):
            some = asked[begin : begin + _AT_ONCE]
            ports = self.ports[number]
            clients = [(ports[f"port{n}"], data, source) for n, data, source in some]
            heard[number] += said_at_once(processes, clients)
        for one, theirs, ours in zip(asked, *heard, strict=True):
            number, data, source = one
            if data == HALF_HELLO and not ours:
                continue  # TLS whose name does not come passes by no route that refuses names; see `PassedOnTest`
            self.assertEqual(ours, theirs, f"{data[:9]!r} from {source} to\n{texts[number]}")

    def has_looks(self, text: str) -> bool:
        """Return whether a frontend is to be looked at, if it is alone."""
        filled = self._filled(_DEFAULTS + text, self.ports[1])
        return self.converted(filled, Path("x.cfg")).has_looks


_TLS_COUNT = 8
_TLS_TESTS = (
    "{ ssl_fc_sni a.example }", "{ ssl_fc_sni -m end .example }", "{ ssl_fc_sni b.test a.example }",
    "{ ssl_fc_alpn h2 }", "{ ssl_fc_alpn http/1.1 }", "{ ssl_fc_has_sni }", "HTTP",
    "{ req.payload(0,4) -m str SSH- }", "{ src 127.0.0.2 }",
)  # fmt: skip
_TLS_CLIENTS = tuple(
    f"tls {hello}{said}{source}"
    for hello in ("a.example ", "c.example alpn=h2,http/1.1 ", "b.test alpn=http/1.1 ", "")
    for said in ("http", "ssh")
    for source in ("", " from 127.0.0.2")
)


class RandomTlsTests(SideBySideTestCase):
    program = "haproxy"

    def test_alike(self) -> None:
        make_certificate(self.own_folder, "a.example")
        chance = random.Random(5)
        sure = 0
        for _ in range(_TLS_COUNT):
            self.ports = [{}, {}]
            self.start(self.frontend(chance))
            if "# LOOK:" in self.found.text:
                continue
            sure += 1
            theirs, ours = self.answers([dict.fromkeys(_TLS_CLIENTS, "")])
            self.assertEqual(ours, theirs, self.found.text)
        self.assertGreaterEqual(sure, _TLS_COUNT // 2)

    def frontend(self, chance: random.Random) -> str:
        def condition() -> str:
            sample = chance.sample(_TLS_TESTS, chance.choice((1, 1, 2)))
            tests = (f"{chance.choice(('', '', '!'))}{one}" for one in sample)
            return f"{chance.choice(('if', 'if', 'unless'))} {chance.choice((' ', ' or ')).join(tests)}"

        rules = [f"    use_backend {chance.choice('abc')} {condition()}" for _ in range(3)]
        if chance.random() < 0.4:
            rules.insert(0, f"    tcp-request content reject {condition()}")
        return "\n".join(
            [
                "frontend f",
                "    bind 127.0.0.1:<port> ssl crt <folder>/a.example.both alpn h2,http/1.1",
                "    tcp-request inspect-delay 1500ms",
                "    tcp-request content reject if WAIT_END FALSE",
                *rules,
                "    default_backend a",
                *(f"backend {name}\n    server s <{name}>" for name in "abc"),
                "",
            ]
        )
