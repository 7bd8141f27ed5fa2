from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.model import (
    Backend,
    Keepalive,
    Listener,
    NetworkSet,
    Outcome,
    Rate,
    Refusal,
    Senders,
    UnixClients,
)
from txmux.rules.reading.parser import parse


def _name(outcome: Outcome) -> str:
    if isinstance(outcome, Backend):
        return outcome.name
    assert isinstance(outcome, Refusal)
    return outcome.value


class ListenerTests(SynchronousTestCase):
    def listener(self, text: str) -> Listener:
        return cases.read(f"[listen a]\nendpoint = :1\n{text}\n").listeners[0]

    def test_values(self) -> None:
        text = (
            "accept_proxy_from = 10.0.0.0/8, ::1\nproxy_timeout = 250ms\nmax_connections_per_source = 5\n"
            "max_undecided_per_source = 6\nconnection_rate_per_source = 20/s burst=40\n"
        )
        networks = ["10.0.0.0/8", "::1/128"]
        for its, expected in (
            ("", (None, 3.0, 0, 0, None)),
            (text, (networks, 0.25, 5, 6, Rate(20.0, 40))),
        ):
            found = self.listener(its)
            senders = found.accept_proxy_from and sorted(map(str, found.accept_proxy_from))
            limits = found.max_connections_per_source, found.max_undecided_per_source
            values = senders, found.proxy_timeout, *limits, found.connection_rate_per_source
            self.assertEqual(values, expected)

    def test_silent(self) -> None:
        found = self.listener(
            "silent = 127.0.0.1:3306 from=10.0.0.0/8,::1 after=300ms\n  b after=1s\n  reset\n"
            "first = server\n[backend b]\nserver = 127.0.0.1:25"
        )
        networks = NetworkSet(map(ip_network, ("10.0.0.0/8", "::1")))
        self.assertEqual(
            [(_name(line.outcome), line.clients.allowed, line.after) for line in found.silent],
            [("127.0.0.1:3306", networks, 0.3), ("b", None, 1.0), ("reset", None, None)],
        )
        self.assertEqual(found.first, "server")
        self.assertEqual(self.listener("").silent, ())

    def test_detect_timeout_where_silent_names_a_server(self) -> None:
        for silent, seconds in {
            "": 5, "silent = close\n": 5, "silent = reset from=::1\n": 5, "silent = 127.0.0.1:22\n": 3,
            "silent = close from=::1\n  handover:/run/x\n": 3, "silent = h:1\ndetect_timeout = 9s\n": 9,
        }.items():  # fmt: skip
            self.assertEqual(self.listener(silent).detect_timeout, seconds, silent)

    def test_time_of_routes_by_silence(self) -> None:
        """It is the usual one unless the listener's own is written, and clients that say something keep theirs."""
        for keys, seconds, of_others in (
            ("", 3, 5), ("detect_timeout = 9s\n", 9, 9), ("detect_timeout = 5s\n", 5, 5),
            ("detect_timeout = 1s\n", 1, 1), ("silent = h:1\n", 3, 3),
        ):  # fmt: skip
            found = self.listener(keys)
            self.assertEqual((found.silent_after, found.detect_timeout), (seconds, of_others), keys)

    def test_keepalive(self) -> None:
        for text, wanted in (
            ("yes", Keepalive(60, 15, 4)),
            ("no", None),
            ("idle=60s interval=20s count=3", Keepalive(60, 20, 3)),
            ("count=1 idle=1h", Keepalive(3600, 15, 1)),
        ):
            self.assertEqual(self.listener(f"keepalive = {text}").keepalive, wanted)
        self.assertEqual(self.listener("").keepalive, Keepalive())
        self.assertEqual(self.listener("freebind = yes").freebind, True)

    def test_rates(self) -> None:
        for text, rate in {
            "20/s": Rate(20.0, 20), "30/m": Rate(0.5, 30), "3600/h burst=1": Rate(1.0, 1),
        }.items():  # fmt: skip
            found = self.listener(f"connection_rate_per_source = {text}")
            self.assertEqual(found.connection_rate_per_source, rate)


class SendersTests(SynchronousTestCase):
    def senders(self, value: str) -> NetworkSet | None:
        text = f"[listen public]\nendpoint = 127.0.0.1:0\naccept_proxy_from = {value}\n"
        return parse(text, "rules.ini").listeners[0].accept_proxy_from

    def test_unix(self) -> None:
        for value, count in (("unix", 0), ("10.0.0.0/8\n    unix", 1)):
            found = self.senders(value)
            assert isinstance(found, Senders)
            self.assertEqual((found.by_unix, len(found)), (True, count))

    def test_equal(self) -> None:
        network = ip_network("10.0.0.0/8")
        both = Senders([network, UnixClients.UNIX])
        self.assertEqual(both, Senders([UnixClients.UNIX, network]))
        self.assertEqual(hash(both), hash(Senders([UnixClients.UNIX, network])))
        self.assertNotEqual(both, Senders([network]))
        self.assertNotEqual(both, Senders([UnixClients.UNIX]))
        self.assertNotEqual(both, NetworkSet([network]))
