"""What programs write as a rules file would, and what they are told of anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux import Backend, Listener, MuxFactory, Refusal, Server
from txmux.rules.embedding import from_python
from txmux.rules.model.listener import Rate


class ValuesTests(SynchronousTestCase):
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
        self.assertEqual(self.settings(peek_limit="16KiB").peek_limit, 16384)
        rate = self.settings(connection_rate_per_source="20/s burst=40").connection_rate_per_source
        self.assertEqual(rate, Rate(20.0, 40))

    def test_servers_are_read(self) -> None:
        two: Any = (Server("127.0.0.1:22", weight=3), "[::1]:23")
        self.assertEqual(self.servers(Backend("b", two)), [("127.0.0.1", 22, 3), ("::1", 23, 1)])
        alone: Any = "127.0.0.1:22"
        self.assertEqual(self.servers(Backend("b", alone)), [("127.0.0.1", 22, 1)])

    def test_routes_as_pairs(self) -> None:
        routes: Any = [("ssh", "127.0.0.1:22")]
        MuxFactory(routes)
        (route,), _ = from_python(routes, Listener("a"))
        self.assertEqual(route.name, "ssh")

    def test_anything_else_is_an_error_at_once(self) -> None:
        makers: dict[str, Callable[[], object]] = {
            "Listener(detect_timeout='soon'): 'soon' is not a duration": lambda: MuxFactory(
                [], Listener("a", detect_timeout=_any("soon"))
            ),
            "Listener(detect_timeout=[]): write seconds, or a text such as '5s'": lambda: (
                MuxFactory([], Listener("a", detect_timeout=_any([])))
            ),
            "5 is not a protocol factory, a server such as '127.0.0.1:22'": lambda: MuxFactory(
                [], Listener("a", default=_any(5))
            ),
            "unknown matcher 'shs'; did you mean 'ssh'?": lambda: MuxFactory(
                _any([("shs", "a:1")])
            ),
            "'ssh' is not a route; make one by txmux.route(": lambda: MuxFactory(_any(["ssh"])),
            "'nowhere' has no port": lambda: MuxFactory(
                _any([("ssh", Backend("b", _any(("nowhere",))))])
            ),
        }
        for told, make in makers.items():
            self.assertIn(told, str(self.assertRaises(TypeError, make)))


def _any(value: Any) -> Any:
    return value
