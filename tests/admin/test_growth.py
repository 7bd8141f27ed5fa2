"""How the steps of what an operator sees grow with the rules."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.growth import AT_ALL, AT_NONE, RULES, finished, growth
from txmux.access.admission import Admission
from txmux.admin.encoding import json_pieces
from txmux.admin.metrics import exposition
from txmux.backends.health.observer import ServerObserver
from txmux.backends.upstreams import Upstreams
from txmux.client.tls.terminators import TlsTerminators
from txmux.control.control import Control
from txmux.control.overrides import ServiceState
from txmux.control.service_files import ServiceFiles
from txmux.control.worker_answers import WorkerAnswers
from txmux.net.channel.message import Message
from txmux.rules.model import Rules
from txmux.rules.packing import pack, unpack
from txmux.rules.reading.parser import parse
from txmux.serving.serving import Serving
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.counters import Counters

_Make: TypeAlias = Callable[[Control], Coroutine[Any, Any, object]]


async def _routes(control: Control) -> object:
    return (await control.routes())[0]


async def _metrics(control: Control) -> object:
    reports = await control.ask()
    counts = await control.counts(reports)
    return exposition(counts, await control.backends(counts, reports.addresses))


async def _shown(make: _Make, control: Control) -> None:
    found: Any = await make(control)
    if make not in {_metrics, Control.look}:
        [*json_pieces(found)]


class _Worker:
    number, ready = 0, True
    is_late = is_retiring = False

    def __init__(self, rules: Rules) -> None:
        serving = Serving(unpack(pack(rules)), None, reactor, accepting=False)
        for listener in serving.rules.listeners:
            serving.add(listener, Admission(listener, lambda: 0.0))
        self._handlers = WorkerAnswers(serving).handlers

    def ask(self, message: Message, *, seconds: float | None, **values: Any) -> Deferred[Any]:
        return maybeDeferred(self._handlers[message], **values)


def _state(rules: Rules, workers: Sequence[Any]) -> ServiceState:
    upstreams = Upstreams(reactor, reactor, mock.Mock())
    upstreams.add_backends(rules)

    async def missing() -> list[str]:
        return []

    async def status() -> dict[str, Any]:
        return {}

    files = ServiceFiles(TlsTerminators(reactor), upstreams, mock.Mock())
    observer = ServerObserver(upstreams, Counters(), reactor)
    return ServiceState(lambda: workers, status, missing, upstreams, files, observer)


def view_of(make: _Make, what: str, count: int) -> Any:
    rules = parse(RULES[what](count), "x.ini")
    counters = Counters()
    counters.extend(rules)
    counters.column(1)
    control = Control(
        reactor, rules, counters, ListeningSockets(reactor), mock.Mock(are_arriving=lambda: False)
    )
    control.state = _state(rules, [_Worker(rules)] if make == Control.look else [])
    finished(_shown(make, control))  # templates and the index of the rules are made once
    return lambda: finished(_shown(make, control))


_VIEWS: Mapping[_Make, Sequence[str]] = {
    Control.status: ("routes", "servers", "listeners"), _routes: ("routes", "listeners"),
    Control.backends: ("backends", "servers"), _metrics: ("routes", "servers"),
}  # fmt: skip


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def test_views(self) -> None:
        found = {
            f"{make.__name__} {what}": growth(partial(view_of, make, what))
            for make, kinds in _VIEWS.items()
            for what in kinds
        }
        self.assertEqual({name: grown for name, grown in found.items() if grown > AT_ALL}, {})
        for what in ("routes", "backends", "servers"):
            self.assertLessEqual(growth(partial(view_of, Control.look, what)), AT_NONE, what)
