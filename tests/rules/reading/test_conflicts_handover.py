"""Reading ``handover:/PATH``, and what is said where sockets cannot be handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading.cases import ReadingTestCase
from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Backend, Handover, Listener, TlsEnd
from txmux.rules.reading.parser import parse
from txmux.tcp.io_runtime import IORuntime
from txmux.tcp.listener import MuxFactory

if TYPE_CHECKING:
    from txmux.rules.model import Rules

_TO = "handover:/run/x.sock"
_ROUTE = f"[route ssh]\nmatch = ssh\nbackend = {_TO}\n"
_USELESS = "so that no other program could use the socket"


class HandoverTests(ReadingTestCase):
    def read(self, text: str) -> Rules:
        return parse(text, "x.ini", installed_matchers())

    def test_outcomes(self) -> None:
        rules = self.read(
            f"{self.listen}default = {_TO}\nsilent = {_TO} from=10.0.0.0/8\n"
            "[route r]\nmatch = ssh\nbackend = handover:'run/my x.sock'\n"
        )
        (listener,) = rules.listeners
        self.assertEqual(listener.default, Handover("/run/x.sock"))
        self.assertEqual(listener.silent[0].outcome, Handover("/run/x.sock"))
        self.assertEqual(rules.routes[0].outcome, Handover("run/my x.sock"))
        self.assertEqual(Handover("/run/x.sock").name, _TO)

    def test_host_called_handover(self) -> None:
        default = self.read(f"{self.listen}default = handover:22\n").listeners[0].default
        assert isinstance(default, Backend)
        self.assertEqual((default.servers[0].host, default.servers[0].port), ("handover", 22))

    def test_wrong_paths(self) -> None:
        for text, told in {
            "handover:": "'handover:' names no UNIX socket; write handover:/run/x.sock",
            "handover:/run/x.sock weight=2": "'weight=2' is not expected after the path; remove it, or write quotes around a path with blanks",
            f"handover:/{'x' * 107}": "is 108 bytes long; the path of a UNIX socket has at most 107",
        }.items():
            self.refuses(f"{self.listen}default = {text}\n", f"3 default: {told}")

    def test_neither_server_nor_fallback(self) -> None:
        self.refuses(
            f"{self.listen}default = b\n[backend b]\nserver = {_TO}\n",
            f"5 server: '{_TO}' is not a server to connect to, so nothing else of a [backend] would count; "
            "write it where this backend is named",
        )
        self.refuses(
            f"{self.listen}default = b\n[backend b]\nserver = a:1\nfallback = {_TO}\n",
            "6 fallback: what the client said has been read for this backend by then, and cannot be given back; name a server",
        )

    def test_nothing_where_tls_ends(self) -> None:
        ends = "[route web]\nmatch = tls\nterminate_tls = cert.pem\n"
        self.refuses(
            f"{self.listen}{ends}backend = {_TO}\n",
            f"6 backend: TLS ends here, {_USELESS}; name a server",
        )
        self.refuses(
            f"{self.listen}{ends}{_ROUTE}under = web\n",
            f"8 backend: [route web] ends TLS, {_USELESS}; "
            "name a server, or put it under a listener",
        )
        self.refuses(
            f"{self.listen}default = {_TO}\n{ends}",
            "6 terminate_tls: clients that no route takes inside of TLS go where [listen a] leads them, which hands "
            "over sockets, which no other program could use here; add 'backend'",
        )
        self.read(f"{self.listen}default = {_TO}\n{ends}backend = 127.0.0.1:80\n{_ROUTE}")
        self.read(f"{self.listen}{ends}{_ROUTE}")

    def test_nothing_where_clients_may_have_been_answered(self) -> None:
        postgres = "[route pg]\nmatch = postgres sni=a.example\nbackend = 127.0.0.1:5432\n"
        told = (
            "[route pg] of [listen a] may have answered the client first, and its request cannot be taken back; "
            "put one of the two under another listener, or name a server"
        )
        self.refuses(
            f"{self.listen}silent = 127.0.0.1:9\n  {_TO}\n{postgres}{_ROUTE}",
            f"4 silent: {told}",
            f"10 backend: {told}",
        )
        self.read(f"{self.listen}{postgres}dry_run = yes\n{_ROUTE}")
        self.read(f"{self.listen}[listen b]\nendpoint = :2\n{postgres}under = a\n{_ROUTE}under = b")

    def test_only_plain_tcp_sockets(self) -> None:
        for endpoint in (
            "unix:/run/y.sock",
            "haproxy:tcp:1",
            "systemd:domain=UNIX:index=0",
            "ssl:1:privateKey=k.pem:certKey=c.pem",
        ):
            self.refuses(
                f"[listen a]\nendpoint = :7\n  {endpoint}\n{_ROUTE}",
                f"6 backend: '{endpoint}' of [listen a] has no plain TCP sockets to hand over; "
                "write ADDRESS:PORT there, or name a server",
            )
        for endpoint in ("[::1]:1", "tcp:1", "tcp6:1", "systemd:domain=INET:index=0", "0.0.0.0:1"):
            self.read(f"[listen a]\nendpoint = {endpoint}\n{_ROUTE}")

    def test_no_flows(self) -> None:
        self.refuses(
            f"[listen u]\nendpoint = udp:5\ndefault = {_TO}\n",
            "3 default: sockets are handed over for TCP, but [listen u] is for UDP; name a server",
        )
        self.refuses(
            f"[listen u]\nendpoint = udp:5\n{_ROUTE}",
            "5 backend: its servers are for TCP, but no [listen] is; use another backend, or add a listener",
        )

    def test_no_portable_relay(self) -> None:
        self.refuses(
            f"[txmux]\nrelay = portable\n{self.listen}{_ROUTE}",
            "7 backend: sockets cannot be handed over with 'relay = portable'; remove that, or name a server",
        )


class EmbeddingTests(SynchronousTestCase):
    def test_outcome_from_text(self) -> None:
        self.assertEqual(outcome(_TO), Handover("/run/x.sock"))
        self.assertEqual(outcome(Handover("x")), Handover("x"))

    def test_tls_beside(self) -> None:
        """A route that ends TLS may be beside one that hands over: inside of it, clients go where the listener leads them."""
        files = (make_authority().write(make_folder(self) / "a.pem", key=True),)
        tls = attrs.evolve(route("tls", "close"), outcome=None, terminate_tls=TlsEnd(files))
        runtime = IORuntime(Clock())
        made = MuxFactory([tls, route("ssh", _TO)], Listener("m"), runtime=runtime)
        self.assertTrue(made.configuration.hands_over)
        with self.assertRaisesRegex(MuxError, "no other program could use here; add 'backend'"):
            MuxFactory([tls], Listener("m", default=Handover("x")), runtime=runtime)

    def test_refused_as_in_files(self) -> None:
        with self.assertRaisesRegex(MuxError, "may have answered the client first"):
            MuxFactory([route("postgres sni=a", "a:1"), route("ssh", _TO)], Listener("m"))
        with self.assertRaisesRegex(MuxError, "on Linux alone, and not with 'relay = portable'"):
            MuxFactory([route("ssh", _TO)], Listener("m"), runtime=IORuntime(Clock(), "portable"))
