from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.telemetry.counting.test_counters import RECORD
from txmux.telemetry.counting.counter_groups import (
    BACKEND,
    LISTENER,
    NO_ROUTE,
    PROCESS,
    ROUTE,
    SERVER,
    WAITING,
)
from txmux.telemetry.counting.counter_rows import Totals
from txmux.telemetry.counting.process_counters import ProcessCounters

_SILENT = attrs.evolve(RECORD, detect_ms=None, duration_ms=-1.0)
_LATE = attrs.evolve(RECORD, bytes_in=3, detect_ms=0.0)
_EVENTS: tuple[tuple[Callable[[Any], object], dict[str, int]], ...] = (
    (lambda its: its.listener.accepted(), {"listener accepted": 1}),
    (lambda its: its.listener.refused("max_flows"), {"listener refused max_flows": 1}),
    (lambda its: its.listener.lost(3), {"listener datagrams lost": 3}),
    (lambda its: its.listener.cut(2), {"listener datagrams cut": 2}),
    (lambda its: its.listener.decided(RECORD), {"listener detect sum": 2000, "listener detect 2.5": 1, "listener bytes 1": 1}),
    (lambda its: its.listener.decided(_LATE), {"listener detect 1": 1, "listener bytes 4": 1, "listener bytes sum": 3}),
    (lambda its: its.route.matched(RECORD), {"route matches": 1, "route last match": 1_000_500}),
    (lambda its: its.route.would_have_matched(), {"route dry run matches": 1}),
    (lambda its: its.route.left(), {"route left": 1}),
    (lambda its: its.listener.relayed(its.route, its.server, 3, 0), {"listener bytes in": 3, "route bytes in": 3, "server bytes in": 3}),
    (lambda its: its.listener.relayed(its.route, its.server, 0, 1), {"listener bytes out": 1, "route bytes out": 1, "server bytes out": 1}),
    (lambda its: its.listener.relayed(its.route, None, 1, 5, 4), {"listener bytes in": 1, "route bytes in": 1, "listener bytes out": 5, "route bytes out": 5, "listener datagrams in": 4}),
    (lambda its: its.listener.relayed(its.route, its.server, 0, 0, 0, 2), {"listener datagrams out": 2}),
    (lambda its: its.listener.connection_ended(its.route, RECORD, "done"), {"listener duration sum": 70_000, "listener duration 100": 1, "route ended done": 1}),
    (lambda its: its.listener.connection_ended(its.route, _SILENT, "silent"), {"listener duration 100": 1, "listener undecided gone": 1, "route ended silent": 1}),
    (lambda its: its.listener.moved_away(its.route), {"listener gone": 1, "route left": 1}),
    (lambda its: its.listener.adopted(its.route), {"listener adopted": 1, "route adopted": 1}),
    (lambda its: its.backend.connected(1.0), {"backend connect sum": 1000, "backend connect 1": 1}),
    (lambda its: its.backend.connected(-1.0), {"backend connect 1": 1}),
    (lambda its: its.backend.held(), {"backend held": 1}),
    (lambda its: its.backend.released(), {"backend released": 1}),
    (lambda its: its.server.connected(), {"server connected": 1}),
    (lambda its: its.server.adopted(), {"server adopted": 1}),
    (lambda its: its.server.released(), {"server released": 1}),
    (lambda its: its.server.failed("error", is_local=True), {"server failed error": 1, "server local faults": 1}),
    (lambda its: its.server.failed("reset", source=9), {"server failed reset": 1, "server reset 0": (9 << 16) + 1}),
    (lambda its: its.server.asked(5), {"server asked": 1, "server waiting 0": (5 << 16) + 1}),
    (lambda its: its.server.answered(its.backend, 3.0), {"server answered": 1, "server answer time": 3000, "backend first byte 5": 1, "backend first byte sum": 3000}),
    (lambda its: its.server.answered(its.backend, -1.0), {"server answered": 1, "backend first byte 1": 1}),
    (lambda its: its.server.unanswered(), {"server unanswered": 1}),
    (lambda its: its.server.closed(), {"server closed": 1}),
    (lambda its: its.server.answered_header(b"HTTP/1.1 400 B"), {"server bad requests": 1}),
    (lambda its: its.server.answered_header(b"HTTP/1.1 200 O"), {}),
    (lambda its: its.server.answered_header(b"SSH-2.0- 400"), {}),
    (lambda its: its.server.relayed(1, 0), {"server bytes in": 1}),
    (lambda its: its.server.relayed(0, 1), {"server bytes out": 1}),
    (lambda its: its.server.recovered(), {"server checks recovered": 1}),
    (lambda its: its.server.checked(0.5), {"server check time": 500_000}),
    (lambda its: its.server.checked(0.0, ok=False), {"server checks failed": 1, "server check time": 1}),
    (lambda its: its.process.spliced(7), {"process spliced": 7}),
    (lambda its: its.process.restarted(), {"process restarts": 1}),
    (lambda its: its.process.lost_lines(2), {"process lost lines": 2}),
)  # fmt: skip


def _groups() -> SimpleNamespace:
    """Return what counts for one thing of each kind, in a process of its own."""
    its = ProcessCounters()
    return SimpleNamespace(
        listener=its.listener("public"), route=its.route("public", "a"), backend=its.backend("web"),
        server=its.server("web", "10.0.0.5:80"), process=its.process,
    )  # fmt: skip


def _counted(its: SimpleNamespace) -> dict[str, int]:
    return {
        f"{group.kind} {name}": cell
        for group in (LISTENER, ROUTE, BACKEND, SERVER, PROCESS)
        for name, cell in zip(group.names, vars(its)[group.kind].cells, strict=True)
        if cell and name != "last failure"
    }


class CountsTest(SynchronousTestCase):
    def test_what_each_event_adds(self) -> None:
        for number, (happen, expected) in enumerate(_EVENTS):
            its = _groups()
            happen(its)
            self.assertEqual(_counted(its), expected, f"event {number}")
        its = _groups()
        its.server.cells[WAITING.start] = (5 << 16) + 0xFFFF
        its.server.asked(5)
        its.server.asked(6)
        self.assertEqual([*its.server.cells[WAITING]], [(6 << 16) + 1, 5 << 16, 0])

    def test_metrics_of_one_of_each(self) -> None:
        def samples(*everything: Totals) -> dict[str, list[Any]]:
            its = {one.name: [*one.samples(everything, None)] for one in everything[0].metrics}
            return {name: found for name, found in its.items() if found}

        its = _groups()
        public, web = ("public",), ("web", "10.0.0.5:80")
        route, none = (ROUTE((*public, name), its.route.cells) for name in ("a", NO_ROUTE))
        server = SERVER(web, its.server.cells)
        listeners = [LISTENER((name,), its.listener.cells) for name in ("public", "other")]
        self.assertFalse({"datagrams_total"} & samples(*listeners).keys())
        self.assertNotIn("backend_checks_failed_total", samples(server))
        its.listener.lost(1)
        its.listener.decided(_LATE)
        its.listener.refused("handshakes")
        its.route.matched(RECORD)
        its.server.checked(0.5, ok=False)
        its.server.failed("limit")
        its.server.failed("error")
        found = samples(*listeners)
        self.assertEqual(found["connections_total"], [(("public",), 0), (("other",), 0)])
        self.assertIn((("other", "lost"), 1), found["datagrams_total"])
        self.assertIn((("public", "handshakes"), 1), found["limit_refused_total"])
        [((), of_all)] = found["detect_bytes"]
        self.assertEqual((of_all.count, of_all.sum, of_all.buckets[1:3]), (2, 6, [(2, 0), (4, 2)]))
        found = samples(route, none)
        self.assertEqual(found["route_matches_total"], [(("public", "a"), 1)])
        seen = found["connections_ended_total"]
        self.assertEqual(seen, [(("public", name, "done"), 0) for name in ("a", "")])
        found = samples(server)
        self.assertEqual(found["backend_checks_failed_total"], [(web, 1)])
        self.assertEqual(found["backend_check_seconds"], [(web, 0.5)])
        failures = dict(found["backend_connect_failures_total"])
        self.assertEqual((failures[*web, "error"], (*web, "limit") in failures), (1, False))
        kinds = {one.name: (one.kind, one.labels) for one in LISTENER.metrics}
        for name, kind in (
            ("connections_total", ("counter", "listener")), ("connections_active", ("gauge", "listener")),
            ("detect_bytes", ("histogram", "")), ("limit_refused_total", ("counter", "listener limit")),
        ):  # fmt: skip
            self.assertEqual(kinds[name], kind)
