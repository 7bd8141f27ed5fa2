from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules import model
from txmux.rules.reading.parser import parse


def _name(outcome: model.Outcome) -> str:
    if isinstance(outcome, model.Backend):
        return outcome.name
    assert isinstance(outcome, model.Refusal)
    return outcome.value


class ListenerTests(SynchronousTestCase):
    def listener(self, text: str) -> model.Listener:
        return cases.read(f"[listen a]\nendpoint = :1\n{text}\n").listeners[0]

    def test_values(self) -> None:
        by_proxy, rate = "accept_proxy_from = 10.0.0.0/8, ::1\n", "connection_rate_per_source"
        rows: tuple[tuple[str, str, object], ...] = (
            ("", "accept_proxy_from", None), ("", "proxy_timeout", 3.0), ("", rate, None),
            (f"{by_proxy}proxy_timeout = 250ms", "proxy_timeout", 0.25),
            *((text, f"max_{what}_per_source", number) for what in ("connections", "undecided")
              for text, number in (("", 0), (f"max_{what}_per_source = 5", 5))),
            (f"{rate} = 20/s burst=40", rate, model.Rate(20.0, 40)), (f"{rate} = 20/s", rate, model.Rate(20.0, 20)),
            (f"{rate} = 30/m", rate, model.Rate(0.5, 30)), (f"{rate} = 3600/h burst=1", rate, model.Rate(1.0, 1)),
            ("", "keepalive", model.Keepalive()), ("keepalive = yes", "keepalive", model.Keepalive(60, 15, 4)),
            ("keepalive = no", "keepalive", None),
            ("keepalive = idle=60s interval=20s count=3", "keepalive", model.Keepalive(60, 20, 3)),
            ("keepalive = count=1 idle=1h", "keepalive", model.Keepalive(3600, 15, 1)),
            ("freebind = yes", "freebind", True), ("", "silent", ()),
        )  # fmt: skip
        for text, key, value in rows:
            self.assertEqual(getattr(self.listener(text), key), value, (text, key))
        senders = self.listener(by_proxy).accept_proxy_from or ()
        self.assertEqual([*map(str, senders)], ["10.0.0.0/8", "::1/128"])

    def test_who_is_silent_and_who_sends_headers(self) -> None:
        found = self.listener(
            "silent = 127.0.0.1:3306 from=10.0.0.0/8,::1 after=300ms\n  b after=1s\n  reset\n"
            "first = server\n[backend b]\nserver = 127.0.0.1:25"
        )
        networks = model.NetworkSet(map(ip_network, ("10.0.0.0/8", "::1")))
        self.assertEqual(
            [(_name(line.outcome), line.clients.allowed, line.after) for line in found.silent],
            [("127.0.0.1:3306", networks, 0.3), ("b", None, 1.0), ("reset", None, None)],
        )
        self.assertEqual(found.first, "server")
        for value, count in (("unix", 0), ("10.0.0.0/8\n    unix", 1)):
            senders = self.senders(value)
            assert isinstance(senders, model.Senders)
            self.assertEqual((senders.by_unix, len(senders)), (True, count))
        network = ip_network("10.0.0.0/8")
        both = model.Senders([network, model.UnixClients.UNIX])
        self.assertEqual(both, model.Senders([model.UnixClients.UNIX, network]))
        self.assertEqual(hash(both), hash(model.Senders([model.UnixClients.UNIX, network])))
        self.assertNotEqual(both, model.Senders([network]))
        self.assertNotEqual(both, model.Senders([model.UnixClients.UNIX]))
        self.assertNotEqual(both, model.NetworkSet([network]))

    def test_silence_has_its_time(self) -> None:
        """It is the usual one unless the listener's own is written, and clients that say something keep theirs."""
        for silent, seconds in {
            "": 5, "silent = close\n": 5, "silent = reset from=::1\n": 5, "silent = 127.0.0.1:22\n": 3,
            "silent = close from=::1\n  handover:/run/x\n": 3, "silent = h:1\ndetect_timeout = 9s\n": 9,
        }.items():  # fmt: skip
            self.assertEqual(self.listener(silent).detect_timeout, seconds, silent)
        for keys, seconds, of_others in (
            ("", 3, 5), ("detect_timeout = 9s\n", 9, 9), ("detect_timeout = 5s\n", 5, 5),
            ("detect_timeout = 1s\n", 1, 1), ("silent = h:1\n", 3, 3),
        ):  # fmt: skip
            found = self.listener(keys)
            self.assertEqual((found.silent_after, found.detect_timeout), (seconds, of_others), keys)

    def senders(self, value: str) -> model.NetworkSet | None:
        text = f"[listen public]\nendpoint = 127.0.0.1:0\naccept_proxy_from = {value}\n"
        return parse(text, "rules.ini").listeners[0].accept_proxy_from
