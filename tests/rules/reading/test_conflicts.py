import sys

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from tests.support.kit import change_constants, make_authority, make_folder
from txmux.client.io_runtime import IORuntime
from txmux.errors import MuxError
from txmux.interfaces import Transport
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Backend, Handover, Listener, Rules, TlsSettings
from txmux.rules.problems import RulesError
from txmux.rules.reading.conflicts import conflicts
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.parser import parse
from txmux.tcp.listener import MuxFactory


def found(*endpoints: str) -> list[str]:
    """Give what is said of the endpoints of one listener, the first in line 2."""
    lines = "".join(f"  {endpoint}\n" for endpoint in endpoints)
    sections, _ = read_ini(f"[listen a]\nendpoint =\n{lines}".replace("=\n  ", "= ", 1), "x.ini")
    return [str(problem) for problem in conflicts(sections)]


class ConflictTests(SynchronousTestCase):
    def test_endpoints_that_meet_are_conflicts(self) -> None:
        for one, other in (
            (":443", ":443"), (":443", "0.0.0.0:443"), (":443", "[::]:443"),
            (":443", "127.0.0.1:443"), (":443", "[::1]:443"), (":443", "tcp:443"),
            (":443", "tcp6:443"), ("tcp:443", "0.0.0.0:443"), ("tcp:443", "127.0.0.1:443"),
            ("tcp:port=0443", "tcp:443:interface=127.0.0.1"),
            ("127.0.0.1:443", "tcp:443:interface=127.0.0.1"),
            ("127.0.0.1:443", "[::ffff:127.0.0.1]:443"), ("[::1]:443", "[0:0::1]:443"),
            ("[::]:443", "[::1]:443"), ("[::1]:443", r"tcp6:443:interface=\:\:1"),
            ("tcp6:443", "[::]:443"), ("ssl:443", ":443"), ("tls:/etc/pems:443", "tcp:443"),
            ("haproxy:tcp:443", ":443"), ("tcp:443:interface=localhost", "tcp:443"),
            ("unix:/run/x", "unix:/run//x:mode=660"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET6:index=0"),
        ):  # fmt: skip
            for pair in ((one, other), (other, one)):
                self.assertEqual(len(found(*pair)), 1, pair)
        folder = make_folder(self)
        (folder / "link").symlink_to(folder)
        self.assertEqual(len(found(f"unix:{folder}/x", f"unix:{folder}/link/./x")), 1)
        for pair in (
            (":443", ":444"), (":0", ":0"), ("127.0.0.1:0", "tcp:0"),
            ("127.0.0.1:443", "127.0.0.2:443"), ("127.0.0.1:443", "[::1]:443"),
            ("0.0.0.0:443", "[::1]:443"), ("[fe80::1%eth0]:443", "[fe80::1%eth1]:443"),
            # Whether an IPv6 socket takes IPv4 clients too is a setting of the system.
            ("0.0.0.0:443", "[::]:443"), ("unix:/run/x", "unix:/run/y"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1"),
            ("systemd:domain=INET:name=a", "systemd:domain=INET:index=0"),
            ("haproxy:nonsense", "haproxy:nonsense"),
        ):  # fmt: skip
            self.assertEqual(found(*pair), [], pair)

    def loops(self, endpoints: str, server: str, more: str = "") -> bool:
        route = "[route r]\nmatch = any\nbackend = b\n"
        text = f"[listen a]\nendpoint = {endpoints}\n{route}[backend b]\nserver = {server}\n{more}"
        try:
            cases.read(text)
        except RulesError as error:
            self.assertEqual([(p.section, p.key) for p in error.problems], [("route r", "backend")])
            return True
        return False

    def test_loops_that_can_be_seen(self) -> None:
        for endpoints, server in (
            ("10.0.0.1:80", "10.0.0.1:80"), ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"), ("127.0.0.1:80\n  [::1]:80", "LOCALHOST.:80"),
            ("[::1]:80", "[::]:80"), ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"), ("[2001:db8::1]:80", "[2001:DB8:0::1]:80"),
            (":80", "127.0.0.1:80"), (":80", "127.9.9.9:80"), (":80", "[::1]:80"),
            (":80", "[::ffff:127.0.0.1]:80"), (":80", "localhost:80"),
            ("0.0.0.0:80", "127.0.0.1:80"), ("tcp:80", "127.0.0.1:80"),
            ("tcp:80:interface=10.0.0.1", "tcp:10.0.0.1:80"),
            ("127.0.0.1:81\n  127.0.0.1:80", "10.0.0.9:80\n  127.0.0.1:80"),
            ("unix:/run/x.sock", "unix:/run/./x.sock"), ("10.0.0.1:80", "{local}:80"),
            (":80", "{local}:80"), (":80", "{local}:{port}"),
            ("10.0.0.1:80\n  unix:/run/x.sock", "{local}:81"), (":80-90", "127.0.0.1:85"),
            (":80-90", "127.0.0.1:{port}"), ("10.0.0.1:5-6\n  127.0.0.1:7", "127.0.0.1:{port}"),
        ):  # fmt: skip
            self.assertTrue(self.loops(endpoints, server), (endpoints, server))
        for endpoints, server, more in (
            ("127.0.0.1:80", "127.0.0.1:81", ""), ("127.0.0.1:80", "127.0.0.2:80", ""),
            ("127.0.0.1:80", "[::1]:80", ""), (":80", "10.0.0.1:80", ""),
            (":80", "web.example.com:80", ""), ("0.0.0.0:80", "[::1]:80", ""),
            ("127.0.0.1:0", "127.0.0.1:80", ""), ("0.0.0.0:80", "localhost:80", ""),
            ("127.0.0.1:80", "127.0.0.1:80 down\n  127.0.0.1:81", ""),
            ("127.0.0.1:80", "localhost:80", "tls = yes"),
            ("unix:/run/x.sock", "unix:/run/y.sock", ""), ("10.0.0.1:80", "{local}:81", ""),
            (":80-90", "10.0.0.1:{port}", ""), ("127.0.0.1:5-6", "127.0.0.2:{port}", ""),
            ("10.0.0.1:80\naccept_proxy_from = 10.0.0.0/8", "{local}:80", ""),
            ("unix:/run/x.sock\naccept_proxy_from = unix", "{local}:80", ""),
        ):  # fmt: skip
            self.assertFalse(self.loops(endpoints, server, more), (endpoints, server))

    def test_datagrams_have_times_of_their_own(self) -> None:
        text = "[listen u]\nendpoint = udp:443\n  udp:192.0.2.1:53\n  udp:[2001:db8::1]:53\n"
        [listener] = _read_installed(text).listeners
        self.assertIs(listener.transport, Transport.UDP)
        self.assertEqual((listener.detect_timeout, listener.peek_limit), (0.3, 16384))
        text = f"{_UDP}default = b\n[backend b]\nserver = udp:[::1]:80\n  udp:a.example:81\n"
        rules = _read_installed(text)
        first, second = rules.backends["b"].servers
        self.assertEqual((first.kind, first.host, first.port), ("udp", "::1", 80))
        self.assertEqual((second.kind, second.host, second.port), ("udp", "a.example", 81))
        self.assertEqual(rules.backends["b"].idle_timeout, 180)
        default = _read_installed(f"{_UDP}default = udp:a:1\n").listeners[0].default
        self.assertTrue(isinstance(default, Backend) and default.idle_timeout == 180)

    def test_routes_are_where_their_transport_is(self) -> None:
        """With `under = *`, a route belongs to the listeners of its servers' transport, and is asked by matchers for that."""
        rules = _read_installed(
            f"{_UDP}[listen t]\nendpoint = :1\n"
            "[route a]\nunder = *\nmatch = any\nbackend = udp:h:2\n"
            "[route b]\nunder = *\nmatch = any\nbackend = h:2\n"
            "[route c]\nunder = *\nmatch = ssh\nbackend = close\n"
        )
        udp, tcp = rules.listeners
        self.assertEqual([r.name for r in rules.routes_over(udp, Transport.UDP)], ["a"])
        self.assertEqual([r.name for r in rules.routes_over(tcp, Transport.TCP)], ["b", "c"])
        pem = make_authority("Test", "x.example").write(make_folder(self) / "x.pem", key=True)
        ends = f"match = any\nterminate_tls = {pem}\n"
        ends_elsewhere = "use a server that ends DTLS or QUIC itself"
        for text, told in (
            (
                f"{_UDP}[route r]\n{ends}",
                f"5 terminate_tls: TLS ends over TCP only, and no [listen] uses TCP; {ends_elsewhere}",
            ),
            (f"{_UDP}[listen t]\nendpoint = :1\n[route r]\n{ends}under = t, u\n",
             f"7 terminate_tls: TLS ends over TCP only, and [listen u] uses UDP; {ends_elsewhere}"),
            (f"{_UDP}[listen t]\nendpoint = :1\n[route r]\nunder = *\n{ends}backend = udp:h:1\n",
             "9 backend: its servers use UDP, but TLS ends over TCP only; use another backend"),
            (
                (
                    f"{_UDP}[listen t]\nendpoint = :1\n[route r]\nunder = *\n{ends}"
                    "[route s]\nunder = r\nmatch = any\nbackend = udp:h:1\n"
                ),
                "12 backend: its servers use UDP, but [route r] uses TCP; write h:1, or use another backend",
            ),
        ):  # fmt: skip
            self.assertEqual(cases.complaints(text, _read_installed), [told])
        rules = _read_installed(f"{_UDP}[listen t]\nendpoint = :1\n[route r]\nunder = *\n{ends}")
        found = [len(rules.routes_over(one, one.transport)) for one in rules.listeners]
        self.assertEqual(found, [0, 1])

    def test_what_is_handed_over(self) -> None:
        rules = _read_installed(
            f"{cases.LISTEN}default = {_TO}\nsilent = {_TO} from=10.0.0.0/8\n"
            "[route r]\nmatch = ssh\nbackend = handover:'run/my x.sock'\n"
        )
        (listener,) = rules.listeners
        self.assertEqual(listener.default, Handover("/run/x.sock"))
        self.assertEqual(listener.silent[0].outcome, Handover("/run/x.sock"))
        self.assertEqual(rules.routes[0].outcome, Handover("run/my x.sock"))
        self.assertEqual(Handover("/run/x.sock").name, _TO)
        text = f"{cases.LISTEN}default = {_TO} user=root,4711\n"
        found = _read_installed(text).listeners[0].default
        self.assertEqual(found, Handover("/run/x.sock", frozenset({0, 4711})))
        self.assertEqual(outcome(_TO), Handover("/run/x.sock"))
        self.assertEqual(outcome(Handover("x")), Handover("x"))
        default = _read_installed(f"{cases.LISTEN}default = handover:22\n").listeners[0].default
        assert isinstance(default, Backend)
        self.assertEqual((default.servers[0].host, default.servers[0].port), ("handover", 22))
        # A route that ends TLS may be beside one that hands over: inside it, clients go where the listener leads them; what files may not have is refused.
        files = (make_authority().write(make_folder(self) / "a.pem", key=True),)
        tls = attrs.evolve(route("tls", "close"), outcome=None, terminate_tls=TlsSettings(files))
        runtime = IORuntime(Clock())
        made = MuxFactory([tls, route("ssh", _TO)], Listener("m"), runtime=runtime)
        self.assertTrue(made.configuration.hands_over)
        with self.assertRaisesRegex(MuxError, "no other program could use these; add 'backend'"):
            MuxFactory([tls], Listener("m", default=Handover("x")), runtime=runtime)
        with self.assertRaisesRegex(MuxError, "may have answered the client first"):
            MuxFactory([route("postgres sni=a", "a:1"), route("ssh", _TO)], Listener("m"))
        change_constants(self, sys, platform="freebsd14")
        with self.assertRaisesRegex(MuxError, "on Linux alone"):
            MuxFactory([route("ssh", _TO)], Listener("m"), runtime=IORuntime(Clock()))


_UDP = "[listen u]\nendpoint = udp:5000\n"


def _read_installed(text: str) -> Rules:
    return parse(text, "x.ini")


_TO = "handover:/run/x.sock"
