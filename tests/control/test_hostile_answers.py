"""Whatever the channel lets through of what a worker says, no view of the service raises."""

import contextlib
import gc
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.support.kit import VirtualTime, make_folder
from tests.support.steps import counts_of
from tests.support.supervised import resources_of
from txmux import MuxService, load
from txmux.admin.guard import Caller
from txmux.admin.metrics import exposition
from txmux.admin.site import ADMIN, make_site
from txmux.control.attention import measured
from txmux.control.gauges import COUNT, Gauges
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel
from txmux.net.channel.message import Field, InvalidMessageError
from txmux.processes.supervisor.worker import Worker
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.documents import ConnectionDocument

_RULES = """
[txmux]
access_log = off
[listen public]
endpoint = 127.0.0.1:0
max_connections_per_source = 5
[route r]
match = any
backend = b
[backend b]
server = 127.0.0.1:1
hold = 5s
"""
_WORKERS = ("worker", "giving worker", "taking worker")
_ANSWERED = [one for one in messages.MESSAGES if one.receiver == "worker" and one.answer]
_SENT = [m for m in messages.MESSAGES if (m.sender, m.receiver) == ("worker", "supervisor")]

_KNOWN = st.sampled_from(
    (
        "b", "r", "public", "127.0.0.1:1", "up", "down", "silent", "relaying", "peeking", "1-1",
        "match", "?", "",
    )
)  # fmt: skip
_TEXTS = st.one_of(_KNOWN, st.text(max_size=8), st.text(st.characters(), max_size=3))
_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
_NAMES = st.sampled_from(("ech", "pid", "ready", "worker", "names", "held", "id", "event", "x"))
"""Of fields that a message may have though the table does not name them there."""


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """Return any value that the table admits as this field."""
    found = _values_of(field)
    return st.none() | found if field.is_nullable else found


_PLAIN: dict[type, st.SearchStrategy[Any]] = {
    object: _ODD, type(None): st.none(), bool: st.booleans(),
}  # fmt: skip


def _values_of(field: Field) -> st.SearchStrategy[Any]:
    if field.kind in _PLAIN:
        return _PLAIN[field.kind]
    if field.kind is str:
        return st.sampled_from(sorted(field.words)) if field.words else _TEXTS
    if field.kind in {int, float}:
        whole = st.integers(field.least, field.most) | st.sampled_from((0, 1, field.most))
        return whole if field.kind is int else whole | st.floats(field.least, field.most)
    if field.row:
        return st.tuples(*map(values_of, field.row)).map(list)
    if field.kind is list:
        return st.lists(values_of(field.of) if field.of else _ODD, max_size=3)
    return _objects_of(field)


def _inner(field: Field) -> dict[str, Field]:
    """Return the fields of an object, but for one that has those of itself."""
    named = field.fields.items()
    return {name: one for name, one in named if one.fields is not field.fields or not one.fields}


def _objects_of(field: Field) -> st.SearchStrategy[dict[str, Any]]:
    if field.of:
        return st.dictionaries(_TEXTS, values_of(field.of), max_size=3)
    fields = _inner(field)
    named = {name: values_of(one) for name, one in fields.items()}
    optional = {name: named.pop(name) for name, one in fields.items() if one.is_optional}
    more = st.dictionaries(_NAMES, _ODD, max_size=2)
    whole = st.fixed_dictionaries(named, optional=optional)
    return st.builds(lambda more, whole: {**more, **whole}, more, whole)


_ANSWERS = {one.kind: values_of(one.answer) for one in _ANSWERED if one.answer}
ANSWERS = st.fixed_dictionaries(_ANSWERS)
_FIELDS = {one.kind: values_of(Field(dict, fields=one.fields)) for one in _SENT if one.fields}
_MESSAGES = (st.tuples(st.just(kind), fields) for kind, fields in _FIELDS.items())
MESSAGES = st.lists(st.one_of(*_MESSAGES), max_size=4)
_CELL = st.integers(0, 2**64 - 1) | st.sampled_from((0, 1, 2**64 - 1))
CELLS = st.lists(_CELL, min_size=1, max_size=7)
Sent = list[tuple[str, dict[str, Any]]]
_CALLER = Caller("", "a test", right="all")
_READ = {one.path for one in ADMIN if one.method == "GET" and not one.is_stream}
_PATHS = [one for one in sorted(_READ - {"/metrics", "/readyz"}) if "{" not in one]
_PATHS += ["/api/connections/1-1", "/?connection=1-1", "/?sort=age&have=x", "/?backend=b&route=r"]


class _Line:
    """The end of a worker that answers questions by these values."""

    backlog = 0

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.channel: Channel

    def write(self, line: bytes) -> None:
        asked = json.loads(line)
        if "ask" in asked:
            self.say("answer", to=asked["ask"], value=self.answers[asked["kind"]])

    def say(self, kind: str, **values: Any) -> None:
        self.channel.dataReceived(json.dumps({"kind": kind, **values}).encode() + b"\n")


class PlayedWorker:
    """A service of which a test plays the worker."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.test = test
        file = make_folder(test) / "rules.ini"
        file.write_text(_RULES)
        self.clock: Any = VirtualTime()
        with capturedLogs():
            self.service = MuxService(load(file), reactor=self.clock)
            self.supervisor = self.service._open()
        test.addCleanup(self.close)
        self.control = self.service.control
        self.site = make_site("metrics", self.control, self.clock.seconds)
        self.site.resources = make_site("admin", self.control, self.clock.seconds).resources

    def close(self) -> None:
        resources_of(self.service).close_sockets(keep_files=False)
        self.supervisor.limits.close()
        for call in self.clock.clock.getDelayedCalls():
            call.cancel()  # one starts a server again for clients of which a worker has said that they wait
        del self.service, self.supervisor, self.control, self.site
        gc.collect()  # the counters close their memory

    def worker(self, answers: Mapping[str, Any]) -> _Line:
        worker = Worker(self.supervisor, 1, self.clock)
        worker.ready = True
        self.supervisor.pool.workers[:] = [worker]
        line = _Line(answers)
        worker._channel = line.channel = Channel(worker.handlers, lambda: None, self.clock)
        line.channel.transport = line
        return line

    def result(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.test.successResultOf(coroutine)

    def get(self, target: str) -> bytes:
        answer = self.result(self.site.answer("GET", target, {}, b"", _CALLER))
        self.test.assertLess(answer.status, 500, (target, answer.body))
        body: bytes = answer.body
        return body

    def ask(self, _: str, path: str, warn: object = None) -> Any:
        return json.loads(self.get(path))

    def answer(
        self, answers: dict[str, Any], sent: Sent, cells: list[int], view: Callable[[], None]
    ) -> None:
        """Have a worker answer so, send so and count so, and look at all views."""
        with capturedLogs() as events:
            line = self.worker(answers)
            block = self.control.counters.column(1).cells
            for at in range(len(block)):  # the worker counts these, again and again
                block[at] = cells[at % len(cells)]
            stop = self.control.events.subscribe(json.dumps)
            for kind, fields in sent:
                line.say(kind, **fields)
            stop()
            for coroutine in (self.control.sample(), self.control.look(), self.control.missing()):
                self.result(coroutine)
            view()
        self.test.assertEqual([eventAsText(one) for one in events if "log_failure" in one], [])


class ViewsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.played = PlayedWorker(self)

    def view(self) -> None:
        result, control = self.played.result, self.played.control
        exposition(result(control.counts()), result(control.backends()))
        for path in _PATHS:
            self.played.get(path)

    @given(ANSWERS, MESSAGES, CELLS)
    def test_views(self, answers: dict[str, Any], sent: Sent, cells: list[int]) -> None:
        self.played.answer(answers, sent, cells, self.view)


class ChannelTest(SynchronousTestCase):
    def setUp(self) -> None:
        rules = parse(_RULES, "rules.ini")
        counters = Counters()
        counters.extend(rules)
        self.rules, self.counts = rules, counts_of(counters, rules)

    @settings(max_examples=scaled(25))
    @given(st.lists(values_of(COUNT.answer or Field(object)), max_size=3))
    def test_gauges(self, answers: list[Any]) -> None:
        read = []
        for answer in answers:
            with contextlib.suppress(InvalidMessageError):
                read.append(COUNT.read_answer(answer, 1))
        gauges = Gauges.of(read)
        exposition(attrs.evolve(self.counts, gauges=gauges))
        json.dumps(gauges.in_status())
        [*measured(gauges, self.rules, 0.0)]

    def test_nothing_that_a_worker_says_is_without_bounds(self) -> None:
        found: list[str] = []
        for message in messages.MESSAGES:
            if message.receiver in _WORKERS:
                found += unbounded(message.answer, message.kind)
            if message.sender in _WORKERS:
                for name, field in message.fields.items():
                    found += unbounded(field, f"{message.kind}.{name}")
        # Their readers check each value by itself, since other versions have other ones.
        read_one_by_one = (
            "adopt.connections.rows[]", "adopt_waiting.connections.rows[]", "adopt_flows.flows[]",
            "part",  # those of features
        )  # fmt: skip
        self.assertEqual(sorted(found), sorted(read_one_by_one))
        answer = messages.CONNECTIONS.answer  # rows of connections
        assert answer is not None
        assert answer.of is not None
        self.assertEqual({*answer.of.fields}, {*ConnectionDocument.__annotations__})


def unbounded(field: Field | None, path: str) -> Iterator[str]:
    """Yield where a value may be anything."""
    if field is None:
        return
    is_bare = not (field.of or field.row or field.fields)
    if field.kind is object or (field.kind in {dict, list} and is_bare):
        yield path
    inner = [(f".{name}", one) for name, one in _inner(field).items()]
    for name, one in [*inner, *(("[]", one) for one in (field.of, *field.row) if one)]:
        yield from unbounded(one, f"{path}{name}")
