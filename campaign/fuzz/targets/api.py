"""Requests to the API: whatever path, query and body, they are answered, and never by "txmux failed".

The first line of an input has the method, the path and the query; what follows is the body.
"""

from __future__ import annotations

import json
from inspect import isawaitable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed

from campaign.fuzz.served import RULES, Reactor, serving
from campaign.fuzz.target import Target
from txmux.admin.guard import AdminGuard, Caller
from txmux.admin.resource import JSON
from txmux.admin.site import ADMIN, Site
from txmux.backends.health.observer import ServerObserver
from txmux.control.control import Control, ServiceActions
from txmux.control.overrides import ServiceState
from txmux.control.report import Report
from txmux.control.service_files import ServiceFiles
from txmux.control.worker_answers import WorkerAnswers
from txmux.net import turns
from txmux.net.channel.message import Message
from txmux.rules.model import Rules
from txmux.serving.serving import Serving
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.counters import OWN, Counters

_CALLER = Caller("uid 0", "UID 0", uid=0)


def _counters() -> Counters:
    counters = Counters()
    counters.extend(RULES)
    counters.column(OWN)
    return counters


class _Worker:
    """A worker in this process."""

    number = 1
    ready = True
    is_late = is_retiring = False

    def __init__(self, running: Serving) -> None:
        self._inside = WorkerAnswers(running)
        self._handlers: dict[Message, Any] = {**self._inside.handlers}
        self.listen = self._inside.listen

    def send(self, message: Message, **values: Any) -> None:
        self.ask(message, seconds=None, **values)

    def ask(self, message: Message, *, seconds: float | None, **values: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._answer(message, values))

    async def _answer(self, message: Message, values: dict[str, Any]) -> Any:
        answer = self._handlers[message](**values)
        return await answer if isawaitable(answer) else answer


def administered(running: Serving, reactor: Reactor) -> Control:
    """Make what an operator can do to a service whose only worker is in this process, but for what ends it."""

    async def refuse() -> Report:
        return Report.refused("not here")

    async def as_before() -> Rules:
        return RULES

    service = ServiceActions(
        reload=refuse,
        upgrade=refuse,
        check_upgrade=refuse,
        stop=lambda: None,
        read_rules=as_before,
        has_outdated_rules=lambda: False,
        are_arriving=lambda: False,
        renew_elsewhere=lambda _: None,
    )
    made = Control(reactor, RULES, _counters(), ListeningSockets(reactor), service)
    made.state = ServiceState(
        lambda: [_Worker(running)],
        running.status,
        running.missing,
        running.upstreams,
        ServiceFiles(running.terminators, running.upstreams, lambda _: succeed(None)),
        ServerObserver(running.upstreams, Counters(), reactor),
        lists=running.runtime.lists,
    )
    return made


def _check(data: bytes) -> None:
    line, _, body = data.partition(b"\n")
    method, _, target = line.decode("latin-1").partition(" ")
    headers = {"host": "localhost", "content-type": JSON}
    # No thread tells a reactor that does not run.
    at_once = patch.object(turns, "outcome_in_thread", lambda *job: succeed(turns._attempt(*job)))
    with at_once, serving() as (running, reactor):
        guard = AdminGuard(frozenset(), reactor.seconds)
        site = Site(administered(running, reactor), ADMIN, guard, is_admin=True)
        outcome: list[Any] = []
        answering = Deferred.fromCoroutine(site.answer(method, target, headers, body, _CALLER))
        answering.addBoth(outcome.append)
        assert outcome, "it waits for something"
        (answer,) = outcome
        assert 200 <= answer.status < 600, answer
        assert answer.status != 500, answer.body
        if answer.type == JSON and answer.stream is None and answer.body:
            json.loads(answer.body, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _seeds() -> list[bytes]:
    return [
        *(
            f"{one.method} {one.path}\n{{}}".encode().replace(
                b"{backend}/servers/{server}", b"web/servers/127.0.0.1:8001"
            )
            for one in ADMIN
            if one.path != "/"
        ),
        b"GET /api/connections?listener=web&state=relaying&client=10.0.0.0/8&older=5s&limit=3&after=1-2\n",
        b'POST /api/connections/close\n{"backend": "web", "route": "tls", "server": "127.0.0.1:8001"}',
        b'POST /api/backends/web/servers/127.0.0.1:8001\n{"state": "drain", "weight": 3, "close_connections": true}',
        b'POST /api/listeners/web\n{"accepting": false}',
        b'POST /api/bans\n{"network": "192.0.2.0/24", "seconds": 60, "reason": "x"}',
        b'POST /api/bans/remove\n{"network": "192.0.2.0/24"}',
        b'POST /api/explain\n{"listener": "web", "from": "192.0.2.1", "text": "SSH-2.0-x\\\\r\\\\n"}',
        b'POST /api/explain\n{"hex": "16 03 01"}',
        b"GET /?listener=web&open=tls&sort=age\n",
    ]


_WORDS = (
    b'"state": ', b'"weight": ', b'"network": ', b'"seconds": ', b'"hex": ', b'"text": ',
    b'"from": ', b"null", b"true", b"1e999", b"NaN", b"\\ud800", b"[[", b"{}", b'""', b"?", b"&",
    b"=", b"%00", b"POST /api/", b"GET /api/", b"connections", b"backends/web/servers/", b"bans",
    b"fe80::1%x",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1000)
