import math
import time
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.refusals import expected_refusals
from txmux.client.overrides import Overrides
from txmux.control.overrides import ServiceState
from txmux.control.report import UnknownError
from txmux.control.rules_index import RulesIndex
from txmux.control.steering import hold, release, set_backend, set_listener, set_server
from txmux.rules.reading.parser import parse

_RULES = """
[listen x]
endpoint = 127.0.0.1:1
[listen u]
endpoint = udp:127.0.0.1:1
[route r]
under = x
match = any
backend = b
[backend b]
server = 10.0.0.1:1
    10.0.0.2:1 weight=3
[backend c]
server = 10.0.0.3:1
    10.0.0.4:1 down
[backend d]
server = 10.0.0.5:1 down
"""


class ReportsTest(SynchronousTestCase):
    """What an operator is answered, whatever the servers are, and whether or not each worker has done it."""

    def setUp(self) -> None:
        index = RulesIndex(parse(_RULES, Path("x.ini")))
        self.late: list[str] = []
        self.shown = dict.fromkeys(("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"), ("up", ""))
        state = SimpleNamespace(overrides=Overrides())
        does = {"override": self.override, "backends": self.backends, "change_workers": self.change}
        self.control: Any = SimpleNamespace(index=index, state=state, **does)

    async def override(self, overrides: Overrides) -> list[str]:
        self.control.state.overrides = overrides
        return self.late

    async def backends(self, *, of: set[str]) -> list[Any]:
        def row(server: str) -> dict[str, str]:
            state, why = self.shown[server]
            return {"server": server, "state": state, "why": why}

        found = (self.control.index.backends[name].servers for name in of)
        return [{"servers": [row(one.text) for one in its if not one.down]} for its in found]

    async def change(self, _: object, **__: object) -> Any:
        answers: Any = type("Answers", (list,), {"missing": ["worker 2 is late"]})
        return answers([(1, 2), (3, 1)])

    def told(self, does: Coroutine[Any, Any, Any]) -> str:
        report = self.successResultOf(does)
        self.assertTrue(report.ok, report)
        return str(report.changes)

    def test_servers(self) -> None:
        none, out = "; no server of {} gets new clients now", ("drain", "")
        down = "down", "refused"
        for states, (what, *arguments), more, expected in (
            ({}, ("b", "10.0.0.1:1"), {"state": "drain"}, "b: 10.0.0.1:1 is drained"),
            ({"10.0.0.1:1": ("drain", "")}, ("b", "10.0.0.1:1"), {"state": "drain", "weight": 5}, "b: 10.0.0.1:1 was drained already, has weight 5"),
            ({"10.0.0.1:1": out, "10.0.0.2:1": down}, ("b", "10.0.0.1:1"), {"state": "maintenance", "close_connections": True},
             f"b: 10.0.0.1:1 is in maintenance, 3 connections ended{none.format('b')}; not yet: worker 2 is late"),
            ({"10.0.0.1:1": out, "10.0.0.2:1": ("failing", "")}, ("b", "10.0.0.1:1"), {"state": "drain"}, "b: 10.0.0.1:1 is drained"),
            ({"10.0.0.1:1": down}, ("b", "10.0.0.1:1"), {"state": "ready"}, "b: 10.0.0.1:1 is ready, but down (refused)"),
            ({"10.0.0.1:1": ("silent", "")}, ("b", "10.0.0.1:1"), {"state": "ready"}, "b: 10.0.0.1:1 was ready already, but silent"),
            ({}, ("b", "10.0.0.2:1"), {"weight": 0}, "b: 10.0.0.2:1 has weight 3"),
            ({}, ("b", "10.0.0.2:1"), {}, "b: 10.0.0.2:1 is as before"),
            ({}, ("b", "drain"), {}, "b: 2 servers are drained"),
            ({}, ("c", "ready"), {}, "c: 1 server was already ready; 1 server marked down in the rules"),
            ({"10.0.0.3:1": down}, ("c", "drain"), {"close_connections": True},
             f"c: 1 server is drained{none.format('c')}; 1 server marked down in the rules; 3 connections ended; not yet: worker 2 is late"),
            ({"10.0.0.1:1": down, "10.0.0.2:1": down}, ("b", "ready"), {}, "b: 2 servers are ready, but 2 not up: 10.0.0.1:1 down (refused)"),
        ):  # fmt: skip
            self.late = []
            self.shown = {**dict.fromkeys(self.shown, ("up", "")), **states}
            set_it: Any = set_server if arguments[0].startswith("10.") else set_backend
            found = self.told(set_it(self.control, what, *arguments, **more))
            self.assertEqual(found, f"backend {expected}")

    def test_backends_and_listeners(self) -> None:
        self.late = ["worker 1 is late"]
        late = "; not yet: worker 1 is late"
        for does, expected in (
            (hold(self.control, "b"), f"backend b: new clients wait, until it is released{late}"),
            (release(self.control, "b"), f"backend b: its clients go on{late}"),
            (release(self.control, "b"), f"backend b: was not held{late}"),
            (hold(self.control, "b", 90.0), f"backend b: new clients wait, for 1 min 30 s{late}"),
            (set_listener(self.control, "x", accepting=False), f"listener x: leaves clients in the queue{late}"),
            (set_listener(self.control, "u", accepting=False), f"listener u: begins no flows{late}"),
            (set_listener(self.control, "x", accepting=True), f"listener x: accepts clients{late}"),
        ):  # fmt: skip
            self.assertEqual(self.told(does), expected)
        overrides = self.control.state.overrides
        self.assertEqual(({*overrides.held}, overrides.shut), ({"b"}, {"u"}))
        self.assertLess(abs(overrides.held["b"] - time.monotonic() - 90), 9)
        self.control.state.overrides = overrides.with_hold("gone", 0.0, math.inf)
        self.assertIn("go on", self.told(release(self.control, "gone")))
        for unknown in (release(self.control, "gone"), hold(self.control, "e")):
            self.failureResultOf(unknown, UnknownError)

    def test_refused(self) -> None:
        told = "there is no backend 'bb'; did you mean 'b'?"
        servers = "backend b has no server '10.0.0.1:10' (there are 10.0.0.1:1, 10.0.0.2:1)"
        for unknown, message in (
            (set_server(self.control, "bb", "x", state="drain"), told),
            (set_server(self.control, "b", "10.0.0.1:10", state="drain"), servers),
            (set_backend(self.control, "bb", "drain"), told),
            (set_listener(self.control, "v", accepting=False), "there is no [listen v]"),
        ):
            self.assertIn(message, self.failureResultOf(unknown, UnknownError).getErrorMessage())
        weight = "weight: must be from 1 to 65535, or 0 for that of the rules, not {}"
        down = "is marked down in the rules; remove 'down' and reload"
        for refused, message in (
            (set_server(self.control, "c", "10.0.0.4:1", state="ready"), down),
            (set_server(self.control, "b", "10.0.0.1:1", weight=65536), weight.format(65536)),
            (set_server(self.control, "b", "10.0.0.1:1", weight=-1), weight.format(-1)),
            (set_backend(self.control, "d", "drain"), f"backend d: all servers are {down[3:]}"),
        ):
            report = self.successResultOf(refused)
            self.assertFalse(report.ok)
            self.assertIn(message, report.errors[0])
        self.assertEqual(self.control.state.overrides, Overrides())

    def test_holds_that_end_and_calls_that_a_sandbox_refuses(self) -> None:
        applied: list[Any] = []
        its: Any = SimpleNamespace(apply_overrides=lambda *values: applied.append(values))
        nothing: Any = None
        state = ServiceState(tuple, nothing, nothing, its, nothing, nothing)
        until = time.monotonic() + 60
        state.apply_overrides(Overrides().with_hold("a", 0.0, 1.0).with_hold("b", 0.0, until))
        self.assertEqual(applied, [({}, {"a": 1.0, "b": until})])
        with capturedLogs() as events:
            for _ in range(2):
                state.end_holds()
                state.note_refused_call(2, "ptrace")
            for number in range(105):
                state.note_refused_call(1, str(number))
        self.assertEqual(len(expected_refusals()), 100)
        self.assertEqual(({*state.overrides.held}, len(state.refused_calls)), ({"b"}, 100))
        self.assertEqual(state.refused_calls["ptrace"][1], 2)
        first, second, *others = map(formatEvent, events)
        self.assertEqual(first, "backend a: the hold by an operator has ended, its clients go on")
        self.assertEqual(second, "worker 2: the sandbox has refused system call ptrace")
        self.assertEqual(len(others), 99)
        state.ended_workers.append((5.0, 1, "x"))
        state.add_ended_workers([[7.0, 2, "z"], [3.0, 2, "y"], [5.0, 1, "x"]])
        self.assertEqual([*state.ended_workers], [(3.0, 2, "y"), (5.0, 1, "x"), (7.0, 2, "z")])
