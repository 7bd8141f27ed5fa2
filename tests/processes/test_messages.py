"""What a worker is told of rules, of memory, and of the files for TLS, of which it opens none."""

import json
import math
import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from unittest.mock import Mock

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from tests.support.kit import make_authority, make_folder
from txmux.access.across_processes import SharedLimits
from txmux.backends.backend_files import BackendFiles
from txmux.backends.pool.server_health import ServerHealth
from txmux.backends.upstreams import Upstreams
from txmux.client.tls.store import CertificateStore
from txmux.client.tls.terminators import TlsTerminators
from txmux.control import service_files
from txmux.control.documents import with_observed
from txmux.control.gauges import COUNT, Gauges
from txmux.control.service_files import ServiceFiles, lost_files
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.message import InvalidMessageError
from txmux.net.watched import RECEIVED, FilesInUse
from txmux.processes.worker.process import WorkerProcess
from txmux.processes.worker.received_rules import Start, sockets_of
from txmux.processes.worker.sent_files import pack_files, unpack_files
from txmux.rules.model import TlsSettings
from txmux.rules.packing import pack
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.state import merged
from txmux.telemetry.sources import Source
from txmux.wire import codec
from txmux.wire.jsontext import parse_json

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


_AUTHORITY = make_authority()
_CONTENT = st.tuples(st.floats(allow_nan=False), st.binary(max_size=50))
_FILES = st.builds(FilesInUse, st.dictionaries(st.builds(Path, st.text()), _CONTENT), st.text())


class SentFilesTest(SynchronousTestCase):
    @given(st.dictionaries(st.text(max_size=9), _FILES))
    def test_any(self, files: dict[str, FilesInUse]) -> None:
        self.assertEqual(unpack_files(pack_files(files)), files)

    def test_content_that_thousands_have(self) -> None:
        users = {f"user {n}": FilesInUse({Path("/ca"): (1.0, bytes(1000))}) for n in range(1000)}
        packed = pack_files(users)
        self.assertEqual(len(packed["contents"]), 1)
        got = unpack_files(packed)
        self.assertIs(got["user 1"].read(Path("/ca")), got["user 2"].read(Path("/ca")))
        # Secrets are not shown.
        self.assertNotIn("secret", repr(FilesInUse({Path("/key"): (1.0, b"secret")})))


class ReceivedTest(SynchronousTestCase):
    """What a worker does with files, of which there are none on the disk."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "site.pem"
        self.patch(RECEIVED, "are_all", True)  # noqa: FBT003 - as for `setattr`
        self.addCleanup(RECEIVED.clear)

    def store(self) -> CertificateStore:
        return CertificateStore(TlsSettings((self.path,)), Clock().seconds, "site")

    def receive(self, *names: str, trouble: str = "") -> None:
        user = f"[route site] terminate_tls = {self.path}"
        issued = self.folder / "issued.pem"
        data = [_AUTHORITY.issue(one).write(issued, key=True).read_bytes() for one in names]
        files = dict.fromkeys([self.path][: len(data)], (1.0, b"".join(data)))
        RECEIVED[user] = FilesInUse(files, trouble)

    def names(self, store: CertificateStore) -> list[str]:
        store.look()
        return [name for row in store.shown() for name in row["names"]]

    def test_none_named_and_renewed(self) -> None:
        """What is made of no file is there at once: the supervisor has nothing to send for it."""
        for keys in ("tls = yes", "via = socks5://127.0.0.1:1"):
            listens = "[listen l]\nendpoint = 127.0.0.1:0\ndefault = b\n"
            rules = parse(f"{listens}[backend b]\nserver = b.example:443\n{keys}\n", "x")
            (backend,) = rules.every_backend()
            files = BackendFiles(backend, Clock().seconds)
            self.assertIsNotNone(files.made, keys)
        # Clients are refused until the supervisor has what can be used.
        self.receive(trouble="no such file")
        store = self.store()
        self.assertTrue(store.may_lack and store.is_lacking())
        self.assertEqual(store.trouble, "no such file")
        self.receive("a.example")
        self.assertFalse(store.is_lacking())
        self.assertEqual((self.names(store), store.trouble), (["a.example"], ""))
        with capturedLogs() as events:
            self.receive("b.example", trouble="cannot be read")
            self.assertEqual(self.names(store), ["b.example"])
        self.assertEqual((store.trouble, events), ("cannot be read", []))


class ServiceFilesTest(SynchronousTestCase):
    """What the supervisor sends."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.sent: list[Mapping[str, FilesInUse]] = []
        self.arrived: Deferred[None] = succeed(None)
        self.terminators = TlsTerminators(Clock())
        upstreams = Upstreams(Clock(), Clock(), mock.Mock())
        self.files = ServiceFiles(self.terminators, upstreams, self.send)

    def send(self, in_use: Mapping[str, FilesInUse]) -> Deferred[None]:
        self.sent.append(in_use)
        return self.arrived

    def open(self, *names: str) -> None:
        text = "[listen l]\nendpoint = 127.0.0.1:1\n"
        for name in names:
            self.issue(name)
            text += f"[route {name}]\nmatch = tls sni={name}.example\nterminate_tls = {name}.pem\nbackend = 127.0.0.1:2\n"
        self.rules = parse(text, self.folder / "rules.ini")
        self.terminators.prepare(self.rules).commit()
        self.files.send()

    def issue(self, name: str) -> None:
        _AUTHORITY.issue(f"{name}.example").write(self.folder / f"{name}.pem", key=True)

    def test_wrong_file(self) -> None:
        """Workers keep what is in use, and are told why."""
        self.open("a", "b")
        file = self.folder / "a.pem"
        before = file.read_bytes()
        file.write_bytes(b"")
        self.files.look()
        its, other = self.sent[-1].values()
        self.assertEqual((its.read(file), other.trouble), (before, ""))
        self.assertIn("no certificate in it; what is in use is kept", its.trouble)
        self.files.look()
        self.assertEqual(self.sent[-1], self.sent[-2])
        self.issue("a")
        self.files.look()
        its, _ = self.sent[-1].values()
        self.assertEqual((its.read(file), its.trouble), (file.read_bytes(), ""))
        self.flushLoggedErrors()

    def test_reload(self) -> None:
        # Changed files are in use if it succeeds; a refused one changes nothing.
        self.open("a")
        (before,) = self.files.in_use().values()
        self.issue("a")
        for is_refused in (True, False):
            prepared = self.terminators.prepare(self.rules)
            self.assertEqual([*self.files.in_use().values()], [before])
            (prepared.abandon if is_refused else prepared.commit)()
            (its,) = self.files.in_use().values()
            self.assertEqual(its == before, is_refused)
        # A look that is waited for ends when all workers have what has changed, of which they are not told again.
        self.arrived = Deferred[None]()
        self.issue("a")
        looking = Deferred.fromCoroutine(self.files.look_now())
        self.assertNoResult(looking)
        (its,) = self.sent[-1].values()
        self.assertEqual(its.read(file := self.folder / "a.pem"), file.read_bytes())
        self.arrived.callback(None)
        self.successResultOf(looking)

    def test_many_in_several_pieces(self) -> None:
        # Else a busy machine leaves some to the next look
        change_constants(self, service_files, _MANY=2, _LONGEST=inf)
        self.open(*"abcde")
        before = self.sent[-1]
        for name in "abcde":
            self.issue(name)
        self.files.look()
        self.assertEqual([user for user in before if self.sent[-1][user] == before[user]], [])

    def test_lost(self) -> None:
        """Another process uses them, though they are gone."""
        self.issue("a")
        path = self.folder / "a.pem"
        tls = TlsSettings((path,), may_lack=True)
        store = CertificateStore(tls, Clock().seconds, "a")
        self.patch(self.terminators, "watched", lambda: [store])
        self.assertEqual(self.files.lost(), [{}, {}])
        path.unlink()
        store.read_again()()
        handed = parse_json(json.dumps(self.files.lost()).encode())
        self.addCleanup(RECEIVED.clear)
        RECEIVED.update(lost_files(*handed))
        again = CertificateStore(tls, Clock().seconds, "a")
        self.assertEqual(again.shown(), store.shown())
        self.assertIn("what is in use is kept", again.trouble)
        self.flushLoggedErrors()
