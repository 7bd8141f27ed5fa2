from typing import Any

from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase

import txmux
from txmux import Backend, MuxError, Refusal, Server, outcome, route
from txmux.rules.model import InProcess


class RouteTest(SynchronousTestCase):
    def test_lines_networks_and_errors(self) -> None:
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

    def test_outcome_kinds(self) -> None:
        factory = ServerFactory()
        backend = Backend("web", (Server("127.0.0.1:80", "tcp", "127.0.0.1", 80),))
        self.assertEqual(outcome("127.0.0.1:80"), Backend("127.0.0.1:80", backend.servers))
        self.assertIs(outcome("reset"), Refusal.RESET)
        self.assertEqual(outcome(factory), InProcess("ServerFactory", factory))
        self.assertIs(outcome(backend), backend)

    def test_all_are_there_and_no_others(self) -> None:
        for name in txmux.__all__:
            self.assertEqual(getattr(txmux, name).__name__, name)
        with self.assertRaises(AttributeError):
            _ = txmux.nothing
