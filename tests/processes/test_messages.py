"""What a worker is told of rules and of memory, if it cannot be."""

import json
import math
import os
import socket
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import attrs
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.across_processes import SharedLimits
from txmux.backends.pool.server_health import ServerHealth
from txmux.control.documents import with_observed
from txmux.control.gauges import COUNT, Gauges
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.message import InvalidMessageError
from txmux.processes.worker.process import WorkerProcess
from txmux.processes.worker.received_rules import Start, sockets_of
from txmux.rules.packing import pack
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.state import merged
from txmux.telemetry.sources import Source
from txmux.wire import codec

_RULES = "[listen a]\nendpoint = 127.0.0.1:1\nmax_connections_per_source = 5\n"


class StartingTests(SynchronousTestCase):
    def setUp(self) -> None:
        rules = parse(_RULES, "x")
        (place,) = listen_addresses(rules.listeners[0])
        self.limits = self.enterContext(closing(SharedLimits.make(rules, 2)))
        self.socket = self.enterContext(socket.socket())
        self.told: dict[str, Any] = {
            "rules": b64encode(pack(rules)).decode(),
            "limits": attrs.asdict(self.limits.layout),
            "column": 1,
            "sockets": [place.key],
            "version": 1,
            "opener": False,
            "may_lack": False,
            "state": {},
        }

    def opened(self, memory: int, *sockets: int, **others: Any) -> Start:
        start = messages.START.read({**self.told, **others}, 1)
        return Start.read([os.dup(one) for one in (memory, *sockets)], **start)

    def assert_refused(self, *descriptors: int, **others: Any) -> None:
        before = {*Path("/proc/self/fd").iterdir()}
        self.assertRaises(MuxError, self.opened, *descriptors, **others)
        self.assertEqual({*Path("/proc/self/fd").iterdir()}, before)

    def test_read(self) -> None:
        """The sockets are by their places, and do not block; what is not known is overlooked. Descriptors have to match the message."""
        memory, listening = self.limits.descriptor, self.socket.fileno()
        opened = self.opened(memory, listening, listening, opener=True, colour="red")
        self.addCleanup(opened.limits.close)
        self.assertEqual([*opened.sockets], self.told["sockets"])
        assert opened.opener is not None
        for one in (opened.opener, *opened.sockets.values()):
            one.close()
        self.assert_refused(memory)
        self.assert_refused(memory, memory)
        self.assert_refused(memory, listening, listening)
        self.assert_refused(memory, listening, opener=True)
        self.assert_refused(memory, listening, sockets=["other"])
        self.assert_refused(memory, listening, listening, sockets=self.told["sockets"] * 2)
        self.assert_refused(listening, listening)
        (one,) = sockets_of([os.dup(self.socket.fileno())])
        with one:
            self.assertFalse(one.getblocking())

    def test_memory(self) -> None:
        """Whatever is counted has to have a place in the memory that there is."""
        short = os.memfd_create("test")
        self.addCleanup(os.close, short)
        os.ftruncate(short, 4096)
        self.assert_refused(short, self.socket.fileno())
        known = self.told["limits"]
        for change in (
            {"columns": 1}, {"columns": 10**30}, {"size": 10**30}, {"size": 8}, {"rows": {"a": -8}},
            {"rows": {"a": known["size"]}}, {"rows": {"a": known["rows"]["a"] + 1}},
            {"tables": {"a": known["size"] - 8}}, {"tables": {"a": 0}},
        ):  # fmt: skip
            limits = {**known, **change}
            self.assert_refused(self.limits.descriptor, self.socket.fileno(), limits=limits)
        for column in (-1, known["columns"] - 1):
            self.assert_refused(self.limits.descriptor, self.socket.fileno(), column=column)
        both = self.limits.descriptor, self.socket.fileno()
        opened = self.opened(*both, limits={**known, "tables": {}})
        self.addCleanup(opened.limits.close)
        self.addCleanup(opened.sockets[self.told["sockets"][0]].close)
        admission = opened.limits.admissions(1, float, 0)
        self.assertRaises(MuxError, admission, parse(_RULES, "x").listeners[0])

    def test_values(self) -> None:
        """Values of a wrong type or out of bounds are refused, and so are messages without one."""
        layout = self.limits.layout
        limits = layout.changes(attrs.evolve(layout, rows={}))
        told = {**self.told, "limits": limits, "rules_changed": True, "base": 1, "digest": "x"}
        invalid: dict[str, tuple[object, ...]] = {
            "rules": ([], {}, None),
            "sockets": ("x", {}, [1], None, ["x" * 5000]),
            "version": (-1, "1", None, True, 2**64),
            "limits": ({}, {"size": "5"}, {**limits, "rows": {"a": "1"}}),
            "base": (-1, "1", None),
            "digest": (1, None),
        }
        for name, value in ((key, one) for key, values in invalid.items() for one in values):
            wrong = {**told, name: value}
            self.assertRaises(InvalidMessageError, messages.PREPARE.read, wrong, 1)
        known = messages.PREPARE.read(told, 1)
        self.assertEqual(messages.PREPARE.read({**told, "colour": 1}, 1), known)
        for name in ("rules", "base", "digest", "limits", "rules_changed"):
            lacking = {key: value for key, value in told.items() if key != name}
            self.assertRaises(InvalidMessageError, messages.PREPARE.read, lacking, 1)
        self.assertRaises(InvalidMessageError, messages.PREPARE.read, told, 2**29)
        for places, cells in (({"x": "1"}, 1), ({}, -1)):
            counters = {"places": places, "cells": cells}
            self.assertRaises(InvalidMessageError, messages.COUNT_IN.read, counters, 1)

    def test_answers(self) -> None:
        # Only what an upgrade can merge is an answer of a worker.
        health = {**codec.write(ServerHealth()), "connections": 0}
        row = {"backend": "b", "server": "s", "target": "t", **health}
        self.assertEqual(messages.SERVERS.read_answer([row], 1), [row])
        for wrong in ({}, {**row, "out": "x"}, {**row, "state": []}, {**row, "failed": 1}):
            self.assertRaises(InvalidMessageError, messages.SERVERS.read_answer, [row, wrong], 1)
        merged([messages.SERVERS.read_answer([row], 1)] * 2)
        # A row that no worker reports breaks no document.
        row = dict.fromkeys(("backend", "server", "address", "why"), "x")
        row |= {"state": "up", "since": None, "weight": 1, "effective_weight": 1}
        wrongs: tuple[dict[str, Any], ...] = ({}, {**row, "since": "now"}, {**row, "since": 2**38})
        for wrong in (*wrongs, {**row, "state": 1}, {**row, "why": None}, {**row, "server": []}):
            self.assertRaises(InvalidMessageError, messages.ADDRESSES.read_answer, [row, wrong], 1)
        rows = messages.ADDRESSES.read_answer([{**row, "more": 1}, {**row, "state": "odd"}], 1)
        self.assertEqual(with_observed([(1, rows)], {}), [(1, [row])])

    def test_gauges(self) -> None:
        """Those of workers are combined, names as the metrics can have them; nothing that cannot be combined is an answer of a worker."""
        clock = Clock()
        source = Source("names", "[::1]:53", "none", clock.seconds)
        row = json.loads(json.dumps(attrs.astuple(source.state())))
        answer: dict[str, Any] = {
            "outside": [row],
            "generations": [1],
            "descriptors": [9, 1024],
            "sources": {"x": 1},
            "troubled": ["b"],
        }
        self.assertEqual(COUNT.read_answer(answer, 1), answer)
        source.requested()
        source.answered()
        clock.advance(100)
        row = json.loads(json.dumps(attrs.astuple(source.state())))
        row[0] = "\ud800"
        gauges = Gauges.of([COUNT.read_answer({**answer, "outside": [row]}, 1)] * 2)
        self.assertEqual(gauges.outside[0].name, "\\ud800")  # for the metrics
        for name, value in (
            ("outside", [[*row, 1]]), ("outside", [[*row[:3], math.nan, *row[4:]]]), ("generations", ["x"]),
            ("descriptors", [1]), ("sources", {"x": "1"}), ("troubled", ["b", 1]), ("troubled", ["x" * 5000]),
        ):  # fmt: skip
            wrong = {**answer, name: value}
            self.assertRaises(InvalidMessageError, COUNT.read_answer, wrong, 1)


class WorkerTests(SynchronousTestCase):
    def test_supervisor_ends_before_it_has_replaced_a_worker(self) -> None:
        """A worker that was signalled, too, ends then, and stops its reactor once."""
        stops = Mock()
        reactor: Any = SimpleNamespace(running=True, _stopped=False, stop=stops)
        stops.side_effect = lambda: setattr(reactor, "_stopped", True)
        worker: Any = WorkerProcess(1, reactor)
        worker.channel.makeConnection(StringTransport())
        worker._serving = SimpleNamespace(listening_ports=Mock(), drain=lambda _: succeed(None))
        worker.be_replaced()
        worker.channel.connectionLost()
        stops.assert_called_once_with()

    def test_descriptors_are_closed(self) -> None:
        """Those that are not wanted, and where there is not the memory in which a worker is to count, which the log says."""
        lacking = "the numbers of this process are missing in the metrics"
        for count, told, message in (
            (2, lacking, {"kind": "count_in", "ask": 1, "cells": 1}),
            (1, "", {"kind": "count_more", "cells": 0}),
        ):
            worker = WorkerProcess(1, Clock())
            worker.channel.makeConnection(StringTransport())
            descriptors = [os.memfd_create("test") for _ in range(count)]
            worker.channel.descriptors_received([*descriptors])
            with capturedLogs() as logged:
                worker.channel.dataReceived(
                    json.dumps(message | {"places": {}, "descriptors": count}).encode() + b"\n"
                )
            (event,) = logged
            self.assertIn(told, eventAsText(event))
            for one in descriptors:
                self.assertRaises(OSError, os.fstat, one)
