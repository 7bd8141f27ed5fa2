"""Frontends that chance has written, served by HAProxy and by txmux: whatever has no ``# LOOK:`` is served alike."""

import itertools
import random
import re
from collections.abc import Mapping

from tests.interop.children import Child, InteropTestCase
from tests.interop.converted.sidebyside import SideBySideTestCase, first_bytes
from tests.interop.originals import HALF_HELLO, Named, said_at_once
from tests.interop.servers import make_certificate
from tests.support.ports import free_port
from tests.support.proc import family_of
from tests.support.services import Service
from txmux.detection.registry import installed_matchers
from txmux_convert.formats import Conversion, convert

_COUNT = 120
_AT_ONCE = 100
_SEED = 11
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
    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = servers
        self._random = random.Random(_SEED)

    def frontend(self, number: int, port: int) -> str:
        choice = self._random.choice
        lines = [
            f"frontend f{number}\n    bind 127.0.0.1:{port}\n    tcp-request inspect-delay 400ms",
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
            lines.append(f"    server s 127.0.0.1:{self._servers[name]}")
        return "\n".join([*lines, ""])

    def _content(self, count: int) -> list[str]:
        actions = ("accept", "reject", "reject")
        return [
            f"    tcp-request content {self._random.choice(actions)} {self._condition()}"
            for _ in range(count)
        ]

    def _condition(self) -> str:
        choice = self._random.choice
        groups = [
            " ".join(choice(("", "", "!")) + choice(_TESTS) for _ in range(choice((1, 1, 2))))
            for _ in range(choice((1, 1, 1, 2)))
        ]
        return f"{choice(('if', 'if', 'if', 'unless'))} {' or '.join(groups)}"


class RandomTests(InteropTestCase):
    def test_alike(self) -> None:
        servers = {name: Named(self, name).port for name in _BACKENDS}
        ports = [[free_port() for _ in range(_COUNT)] for _ in range(2)]
        texts = [self.texts(Writer(servers), some) for some in ports]
        file = self.folder / "haproxy.cfg"
        file.write_text(_DEFAULTS + "".join(texts[0]))
        original = self.own(Child("haproxy", "-W", "-db", "-f", file))
        original.wait_for("Loading success")
        rules = self.converted("".join(texts[1])).text.replace("# LOOK:", "#")
        mux = self.own(Service(self.folder, rules))
        sure = [n for n in range(_COUNT) if not self.converted(texts[1][n]).has_looks]
        self.assertGreater(len(sure), _COUNT / 4)
        asked = [(n, data, source) for n in sure for data in _CLIENTS for source in _SOURCES]
        processes = [*family_of(original.pid), mux.child.pid]
        heard: list[list[str]] = [[], []]
        for number, begin in itertools.product((0, 1), range(0, len(asked), _AT_ONCE)):
            some = asked[begin : begin + _AT_ONCE]
            clients = [(ports[number][n], data, source) for n, data, source in some]
            heard[number] += said_at_once(processes, clients)
        for one, theirs, ours in zip(asked, *heard, strict=True):
            number, data, source = one
            if data == HALF_HELLO and not ours:
                continue  # TLS whose name does not come passes by no route that refuses names; see `PassedOnTest`
            self.assertEqual(ours, theirs, f"{data[:9]!r} from {source} to\n{texts[1][number]}")

    def texts(self, writer: Writer, ports: list[int]) -> list[str]:
        return [writer.frontend(number, port) for number, port in enumerate(ports)]

    def converted(self, text: str) -> Conversion:
        whole = (_DEFAULTS + text).encode()
        return convert(whole, "x.cfg", installed_matchers(), lambda _: None, "haproxy")


_TLS_COUNT = 8
_TLS_SEED = 5
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
        chance = random.Random(_TLS_SEED)
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
            tests = (
                f"{chance.choice(('', '', '!'))}{one}"
                for one in chance.sample(_TLS_TESTS, chance.choice((1, 1, 2)))
            )
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
