from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase

import txmux
from txmux import (
    Backend,
    EmbeddedService,
    Listener,
    MuxError,
    MuxFactory,
    MuxService,
    Refusal,
    Server,
    outcome,
    route,
)
from txmux.rules.embedding import from_python
from txmux.rules.model import (
    Check,
    Clients,
    Ejection,
    InProcess,
    Keepalive,
    Rules,
    ServerTLS,
    Settings,
)
from txmux.rules.model.listener import Rate, Silence
from txmux.rules.model.networks import Public, Reachable, Senders
from txmux.rules.reading.backend import KEYS as BACKEND_KEYS
from txmux.rules.reading.listener import KEYS as LISTENER_KEYS
from txmux.rules.reading.parser import parse


class RouteTest(SynchronousTestCase):
    def test_routes_are_made_or_refused(self) -> None:
        made = route(["ssh", "not tls"], "close")
        self.assertEqual(made.name, "ssh")
        self.assertEqual([a.negated for a in made.alternatives], [False, True])
        self.assertEqual(route("ssh", "close", name="x").name, "x")
        made = route("any", "close", from_=["10.0.0.0/8"], not_from=["10.1.0.0/16", "::1/128"])
        found = (len(made.clients.allowed or ()), len(made.clients.excluded or ()))
        self.assertEqual(found, (1, 2))
        for match, backend, message in [
            ([], "close", "needs a match line"), ("shh", "close", "did you mean 'ssh'"),
            (" ", "close", "unknown matcher ''"), ("ssh", "nowhere", "has no port"), ("ssh", 22, "not a protocol factory"),
        ]:  # fmt: skip
            bad: Any = backend
            self.assertRaisesRegex(MuxError, message, route, match, bad)

    def test_names_and_outcome_kinds(self) -> None:
        factory = ServerFactory()
        backend = Backend("web", (Server("127.0.0.1:80", "tcp", "127.0.0.1", 80),))
        self.assertEqual(outcome("127.0.0.1:80"), Backend("127.0.0.1:80", backend.servers))
        self.assertIs(outcome("reset"), Refusal.RESET)
        self.assertEqual(outcome(factory), InProcess("ServerFactory", factory))
        self.assertIs(outcome(backend), backend)
        for name in txmux.__all__:
            self.assertEqual(getattr(txmux, name).__name__, name)
        with self.assertRaises(AttributeError):
            _ = txmux.nothing

    def settings(self, **values: Any) -> Listener:
        return from_python([], Listener("a", **values))[1]

    def servers(self, backend: Any) -> list[tuple[str, int, int]]:
        (route,), _ = from_python([("ssh", backend)], Listener("a"))
        assert isinstance(route.outcome, Backend)
        return [(one.host, one.port, one.weight) for one in route.outcome.servers]

    def test_texts_are_read(self) -> None:
        self.assertEqual(self.settings(default="close").default, Refusal.CLOSE)
        (line,) = self.settings(silent="127.0.0.1:22").silent
        assert isinstance(line.outcome, Backend)
        self.assertEqual(line.outcome.servers[0].port, 22)
        self.assertEqual(self.settings(detect_timeout="5s").detect_timeout, 5.0)
        for silent, seconds in (("127.0.0.1:22", 3.0), ("close", 5.0), (Refusal.RESET, 5.0)):
            self.assertEqual(self.settings(silent=silent).detect_timeout, seconds)
        self.assertEqual(self.settings(peek_limit="16KiB").peek_limit, 16384)
        rate = self.settings(connection_rate_per_source="20/s burst=40").connection_rate_per_source
        self.assertEqual(rate, Rate(20.0, 40))

    def test_servers_with_their_options_and_routes_as_pairs(self) -> None:
        two: Any = (Server("127.0.0.1:22", weight=3), "[::1]:23")
        self.assertEqual(self.servers(Backend("b", two)), [("127.0.0.1", 22, 3), ("::1", 23, 1)])
        alone: Any = "127.0.0.1:22"
        self.assertEqual(self.servers(Backend("b", alone)), [("127.0.0.1", 22, 1)])
        routes: Any = [("ssh", "127.0.0.1:22")]
        MuxFactory(routes)
        (route,), _ = from_python(routes, Listener("a"))
        self.assertEqual(route.name, "ssh")
        self.assertEqual(self.servers(Backend("b", (Server("a:1", "tcp"),))), [("a", 1, 1)])
        for options in ({"weight": "3"}, {"weight": 0}, {"backup": "yes"}, {"down": 1}):
            made = Server("a:1", **_any(options))
            self.assertRaises(TypeError, self.servers, Backend("b", (made,)))

    def test_networks_are_read(self) -> None:
        inside, outside = ip_address("10.1.2.3"), ip_address("192.0.2.1")
        for texts in (
            ["10.0.0.0/8", "::1"], "10.0.0.0/8", "::1, 10.0.0.0/8", [ip_network("10.0.0.0/8")],
        ):  # fmt: skip
            made = self.settings(
                accept_proxy_from=texts,
                clients=Clients(_any(texts)),
                silent=[Silence(Refusal.RESET, Clients(excluded=_any(texts)))],
            )
            assert made.accept_proxy_from is not None
            self.assertIn(inside, made.accept_proxy_from)
            self.assertNotIn(outside, made.accept_proxy_from)
            self.assertEqual([made.clients.serves(one) for one in (inside, outside)], [True, False])
            self.assertFalse(made.silent[0].clients.serves(inside))
            plain = attrs.evolve(route("ssh", "close"), clients=Clients(excluded=_any(texts)))
            (limited,), _ = from_python([plain], "a")
            self.assertFalse(limited.clients.serves(inside))
        senders = self.settings(accept_proxy_from=["unix", "::1"]).accept_proxy_from
        assert isinstance(senders, Senders)
        self.assertTrue(senders.by_unix)
        for closed in (self.settings(clients=Clients(_any([]))), route("any", "close", from_=[])):
            self.assertFalse(closed.clients.serves(inside))

    def test_anything_else_is_an_error_at_once(self) -> None:
        nowhere = Backend("b", _any(("nowhere",)))
        other = Backend("b", _any(("h:1",)), fallback=_any("udp:h:1"))
        rows: tuple[tuple[str, Any, Any], ...] = (
            ("Listener(detect_timeout='soon'): 'soon' is not a duration", [], {"detect_timeout": "soon"}),
            ("Listener(detect_timeout=[]): write seconds, or a text such as '5s'", [], {"detect_timeout": []}),
            ("5 is not a protocol factory, a server such as '127.0.0.1:22'", [], {"default": 5}),
            ("unknown matcher 'shs'; did you mean 'ssh'?", [("shs", "a:1")], {}),
            ("'ssh' is not a route; make one by txmux.route(", ["ssh"], {}),
            ("'10.0.0.1/8' is an address inside a network", [], {"accept_proxy_from": ["10.0.0.1/8"]}),
            ("5 is not a network; write it as '10.0.0.0/8'", [], {"clients": Clients(_any([5]))}),
            ("5 is not networks", [], {"accept_proxy_from": 5}), ("'nowhere' has no port", [("ssh", nowhere)], {}),
            ("'10.0.0.0/8' does not say which clients", [], {"clients": "10.0.0.0/8"}), ("'quic' works only over UDP", [("quic", "h:1")], {}),
            ("'dns' works only over UDP", [("dns", "udp:h:1")], {}), ("'udp:h:1' works only over UDP", [], {"silent": "udp:h:1"}),
            ("'udp:h:1' works only over UDP", [("ssh", other)], {}), ("'unix' is not a network", [], {"clients": Clients(_any(["unix"]))}),
        )  # fmt: skip
        for told, routes, values in rows:
            with self.assertRaises(TypeError) as caught:
                MuxFactory(routes, Listener("a", **values))
            self.assertIn(told, str(caught.exception))
        for value in ({"default": "udp:h:1"}, {"endpoints": ("udp:1",), "default": "h:1"}):
            with self.assertRaisesRegex(TypeError, "works only over (UDP|TCP), but its clients"):
                self.settings(**value)

    def test_whole_rules(self) -> None:
        """A route for none of the listeners is refused, and so is what is no rules."""
        listeners = (Listener("web", ("tcp:0",)), Listener("udp", ("udp:0",)))
        routes = (route("quic", "udp:h:1"), route("ssh", "h:1"), route("any", "close"))
        rules = Rules(Path("rules"), Settings(), listeners, routes)
        for value in ("5s", 5, 0):
            made = EmbeddedService(attrs.evolve(rules, settings=Settings(drain_timeout=_any(value))))  # fmt: skip
            self.assertEqual(made.rules.settings.drain_timeout, 0 if value == 0 else 5)
        of_file = parse(
            "[listen a]\nendpoint = 127.0.0.1:0\n[route s]\nmatch = ssh\nbackend = h:1", "f"
        )
        added = attrs.evolve(of_file, routes=_any((*of_file.routes, ("http", "h:2"))))
        self.assertEqual([its.name for its in EmbeddedService(added).rules.routes], ["s", "http"])
        for log in (Path("a.log"), None, "stdout"):
            EmbeddedService(attrs.evolve(rules, settings=Settings(access_log=_any(log))))
        for told, values in (
            ("no listener is for 'quic', by its transport", {"listeners": listeners[:1]}),
            ("no listener is for 'ssh', by its transport", {"listeners": listeners[1:]}),
            ("no listener is for 'any', by", {"routes": [attrs.evolve(routes[-1], under=("x",))]}),
            ("write a pathlib.Path", {"settings": Settings(access_log=_any("a.log"))}),
            ("write a whole number", {"settings": Settings(max_connections=-1)}),
        ):
            with self.assertRaisesRegex(TypeError, told):
                EmbeddedService(attrs.evolve(rules, **_any(values)))
        for make in (MuxService, EmbeddedService):
            with self.assertRaisesRegex(TypeError, "'a.ini' is not rules; write txmux.load"):
                make(_any("a.ini"))

    def test_listeners_and_backends(self) -> None:
        """Each value is read as in a rules file, or refused with what is right."""
        listener: dict[str, tuple[Any, object]] = {
            "silent": (["127.0.0.1:22"], 1), "first": ("x", "must be client or server"), "detect_timeout": (float("inf"), "write seconds"),
            "max_connections": (-1, "write a whole number"), "peek_limit": (1.5, "write a whole number"),
            "proxy_timeout": (None, "write seconds, or a text such as '5s'"), "capture": (1, "write True or False"),
            "detect_timeout ": (0, "Listener(detect_timeout=0): must be more than 0; write a duration"), "peek_limit ": (0, "'0' is out of range; from 1 to 1MiB"),
            "connection_rate_per_source": (5, "write a txmux.rules.model.Rate, or a text"),
            "keepalive": (Keepalive(_any("60")), "Keepalive(idle='60'): write a whole number"),
        }  # fmt: skip
        for name, (value, right) in listener.items():
            self.assert_read(partial(self.settings, **{name.strip(): value}), name, right)
        backend: dict[str, tuple[Any, object]] = {
            "balance": ("ip_hash", "must be round-robin"), "proxy_protocol": (True, "write a text, such as 'off'"),
            "idle_timeout": ("never", "write a duration as 250ms"), "max_duration": (True, "write seconds, or a text such as '5s'"),
            "upload_rate": (b"1M", "write a whole number"), "upload_rate ": (0, "'0/s' is out of range"), "upload_rate  ": (10 * 1024, 10240),
            "connect_timeout": (0.0, "must be more than 0"), "hold": (0.1 + 0.2, 0.1 + 0.2), "idle_timeout ": (1e9, "is too long; at most 3650d"),
            "check ": (Check("tcp", interval=0), "Check(interval=0): must be more than 0"), "more": ({"wakes": 0}, "unknown key 'wakes'"), "retries": (10**9, "a whole number from 0 to"),
            "download_rate": (None, None), "fallback": ("reset", Refusal.RESET),
            "tls": (ServerTLS(alpn=_any("h2")), "ServerTLS(alpn='h2'): write a tuple"), "source": (["192.0.2.1"], "write a tuple"),
            "eject": (Ejection(seconds=_any("9s")), "Ejection(seconds='9s'): write seconds"), "check": ("tcp", Check("tcp")),
            "allow_names": (["a"], "write a txmux.rules.model.AllowedNames, or a text"), "deny_networks": (["a"], "'a' is not a network"),
            "allow_networks": (["public", "10.0.0.0/8"], Reachable((Public.PUBLIC, ip_network("10.0.0.0/8")))),
        }  # fmt: skip
        rate = partial(self.settings, connection_rate_per_source=Rate(10, _any("5")))
        self.assert_read(rate, "", "Rate(burst='5'): write a whole number")
        self.assert_read(partial(self.outcome, tls=True), "tls", ServerTLS())
        for name, (value, right) in backend.items():
            self.assert_read(partial(self.outcome, **{name.strip(): value}), name, right)

    def test_what_a_file_can_say_a_program_can(self) -> None:
        for keys, make in ((LISTENER_KEYS, self.settings), (BACKEND_KEYS, self.outcome)):
            usual: Any = make()
            read = {
                key.field or name: key.kind.read(key.example or key.default)
                for name, key in keys.items()
                if key.kind.takes == "one" and not key.kind.in_context and name != "tls"
            }
            read = {name: value for name, value in read.items() if hasattr(usual, name)}
            self.assertGreater(len(read), 15)
            made = {name: getattr(make(**{name: value}), name) for name, value in read.items()}
            self.assertEqual(made, read)
        verified = ServerTLS(ca=Path("ca.pem"), certificate=(Path("client.pem"),))
        self.assert_read(partial(self.outcome, tls=verified), "tls", verified)
        text = partial(self.outcome, tls=ServerTLS(ca=_any("ca.pem")))
        self.assert_read(text, "", "ServerTLS(ca='ca.pem'): write a pathlib.Path")

    def assert_read(self, make: Callable[[], object], name: str, right: object) -> None:
        if isinstance(right, str):
            self.assertIn(right, str(self.assertRaises(TypeError, make)))
            return
        found = getattr(make(), name.strip())
        self.assertEqual(len(found) if name == "silent" else found, right)

    def outcome(self, **values: Any) -> object:
        (route,), _ = from_python([("ssh", Backend("b", _any("a:1"), **values))], Listener("a"))
        return route.outcome


def _any(value: Any) -> Any:
    return value
