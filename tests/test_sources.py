"""Every source that txmux asks, with every hostile peer: what it takes is bounded, it is known in time, and it is used again once it is good."""

import ast
import math
import re
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.hostile import FORGOTTEN, SILENT, HostilePeer, spoil
from tests.support.kit import PeerFactory, VirtualTime, close, listen, make_folder, reactor
from tests.support.sources import ROWS, Row, Stage
from tests.test_structure import parsed
from txmux.access.bans import Bans, ServiceBans
from txmux.access.network_sources import ListUpdates
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstreams import Upstreams
from txmux.features.sharing.bans import Sharing
from txmux.rules.installed import FEATURES, NETWORKS, SERVERS
from txmux.rules.reading.parser import parse
from txmux.serving.embedded import EmbeddedService
from txmux.telemetry.sources import Kind, Source

_LATEST = 70.0
"""Seconds until it is known that there is no good answer."""
_RECOVERS = 120.0
"""Seconds in which a good peer is asked again: after failures, pauses grow to 80 s."""
_MOST, _FLOOD = 72 << 20, 96 << 20
"""Bytes taken from a connection at most, with those that wait in its buffers, and that a peer would send. Few of them stay in memory."""
_STEP = 0.25
_BEGAN = time.time()
_VISITORS = 8


class PeersTests(TestCase):
    """Runs the parts of a service that ask something, in this process, with a clock that the test moves, with each peer."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.time = VirtualTime()
        self.events = self.enterContext(capturedLogs())

    def begin(self, stage: Stage, port: int) -> None:
        text = stage.rules(port, listen(self, PeerFactory()), "access_log = off\nadmin = off\n")
        rules = parse(text, self.folder / "rules.ini")
        self.service = EmbeddedService(rules, reactor=self.time)
        self.lists = ListUpdates(self.time, lambda _: None)
        bans = Bans()
        self.sharing = Sharing(
            self.time, ServiceBans(lambda: bans, lambda _: succeed([]), self.time.seconds)
        )
        self.service.startService()
        self.parts = self.service._parts
        if "acme" in self.parts:
            certificates: Any = self.parts["acme"]
            certificates._now = lambda: _BEGAN + self.time.seconds()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        self.lists.commit(rules)
        self.sharing.commit(rules)
        self.visits = stage.visits and stage.visits[0]
        self.visitors: deque[socket.socket] = deque()
        self.addCleanup(lambda: close(*self.visitors))

    async def stop(self) -> None:
        self.lists.stop()
        stops = self.sharing.stop_following, self.service.stopService
        stopping = [*map(maybeDeferred, stops)]
        while not all(one.called for one in stopping):
            await self.step()

    @property
    def upstreams(self) -> Upstreams:
        assert self.service.serving is not None
        return self.service.serving.upstreams

    def sources(self) -> Iterator[Source]:
        yield from (*self.lists.sources(), *self.sharing.sources(), *self.upstreams.sources())
        for listener in self.service.listeners[:1]:
            for serving in listener.runtime.parts.values():
                yield from serving.sources()
        for part in self.parts.values():
            yield from part.sources()

    def is_up(self) -> bool:
        """Tell whether all sources have answered; without any, whether all servers are up."""
        sources = [*self.sources()]
        states = [one.state() for one in sources]
        if sources:
            return all(state.up and state.age is not None for state in states)
        members = [member for one in self.upstreams.all() for member in one.pool.members]
        return all(member.state is MemberState.UP for member in members)

    def is_down(self) -> bool:
        """Tell whether a source is known to have no good answers, or a server."""
        down = [one for one in self.sources() if not one.state().up]
        return bool(down) or (not [*self.sources()] and not self.is_up())

    def is_overdue(self) -> bool:
        return any(one.state().is_overdue for one in self.sources())

    async def step(self, seconds: float = _STEP) -> None:
        if self.visits is not None and seconds and self.service.running:
            host: Any = self.service.ports[-1].getHost()
            self.visitors.append(socket.create_connection(("127.0.0.1", host.port)))
            self.visitors[-1].sendall(self.visits)
            if len(self.visitors) > _VISITORS:
                self.visitors.popleft().close()
        self.time.advance(seconds)
        await deferLater(reactor, 0.002)

    async def until(self, condition: Any, seconds: float) -> None:
        end = self.time.seconds() + seconds
        while not condition():
            self.assertLess(self.time.seconds(), end, [*map(formatEvent, self.events)])
            await self.step()
            for _ in range(5 * (condition == self.is_up)):
                await self.step(0)  # a good peer answers in no time

    async def face(self, source: str, way: str) -> None:
        row = ROWS[source]
        stage = row.prepare(self, self.folder)
        if row.dialect is None:
            await self.face_file(stage, way)
            return
        first = "" if stage.later else way
        pace = {"interval": 0.05, "rate": 400e6, "limit": _FLOOD}
        peer = HostilePeer(row.dialect, first, stage.good, context=stage.context, **pace)
        peer.__enter__()
        self.addCleanup(peer.close)
        self.begin(stage, peer.port)
        if stage.later:
            await self.until(self.is_up, _LATEST)
        before = len(self.events)
        peer.turn(way)
        await self.be_hostile(row, way, peer)
        if self.is_down() and "limited" not in stage.sections and "{host}" not in stage.sections:
            await self.until(lambda: self.lines(before), _LATEST)  # the supervisor logs for workers
        self.assertLess(peer.most, _MOST)
        if "certificates" in row.kinds:  # then this machine asks for them by itself
            await self.until(
                lambda: any("the certificate of" in formatEvent(one) for one in self.events),
                _LATEST,
            )
        if stage.good is not None:
            peer.turn("")
            await self.until(self.is_up, _RECOVERS)
        self.assertEqual(peer.followed, 0)

    async def be_hostile(self, row: Row, way: str, peer: HostilePeer) -> None:
        assert row.dialect is not None
        before = peer.connections
        if way == FORGOTTEN:
            await self.until(lambda: peer.connections > before, _LATEST)
            return
        if way in row.dialect.endless and not row.dialect.has_datagrams:
            await self.until(lambda: peer.most, _LATEST)
            while peer.flooded and peer.most < _FLOOD:  # no deadline ends it
                await self.step(0)
        if way == SILENT and row.kinds:
            await self.until(self.is_overdue, _LATEST)
        else:  # the head of an answer is enough for some checks
            may_succeed = not row.kinds and way != SILENT
            most = before + 3 if may_succeed else math.inf
            await self.until(lambda: self.is_down() or peer.connections > most, _LATEST)

    async def face_file(self, stage: Stage, way: str) -> None:
        assert stage.file is not None
        content = stage.file.read_bytes()
        self.begin(stage, 0)
        await self.until(self.is_up, _LATEST)
        before = len(self.events)
        spoil(stage.file, way)
        await self.until(self.is_overdue, _LATEST + 2)
        self.assertTrue(self.lines(before))
        if stage.file.is_dir():
            stage.file.rmdir()
        new = stage.file.with_suffix(".new")
        new.write_bytes(content)
        new.rename(stage.file)
        await self.until(self.is_up, _RECOVERS)

    def lines(self, start: int) -> list[str]:
        levels = (LogLevel.warn, LogLevel.error)
        return [formatEvent(one) for one in self.events[start:] if one["log_level"] in levels]


# Those that say nothing, and that never end.
_FIRST = {SILENT, "endless body", "endless answers", "missing", "huge"}


def _test_of(source: str, way: str) -> Any:
    async def test(self: PeersTests) -> None:
        await self.face(source, way)

    return test if way in _FIRST else pytest.mark.whole(pytest.mark.by_turns(each=True)(test))


for _source, _row in ROWS.items():
    for _way in _row.ways:
        _name = re.sub(r"\W", "_", f"test_{_source}_{_way}")
        setattr(PeersTests, _name, _test_of(_source, _way))


class ContractTests(SynchronousTestCase):
    def test_each_kind_has_a_row(self) -> None:
        rows = [row.kinds for row in ROWS.values()]
        of_features = {kind for feature in FEATURES for kind in feature.sources}
        kinds = {*get_args(Kind), *NETWORKS, *SERVERS, *of_features}
        self.assertEqual(frozenset().union(*rows), kinds)
        # What is asked anything goes through one of these, which have deadlines and bounds.
        found: dict[str, set[str]] = {}
        for path, code in parsed(rf"\b({_CONNECTS.pattern})\b").items():
            for name in _clients(code):
                found.setdefault(str(path), set()).add(name)
        self.assertEqual(found, _CLIENTS)


_CONNECTS = re.compile(
    r"(Hostname|TCP[46]?Client|UNIXClient|Wrapper)Endpoint|clientFromString|Agent|ProxyAgent|treq|txredisapi"
    r"|requests|urllib3|httpx|aiohttp|urlopen|HTTPS?Connection|create_connection|connect(TCP|UNIX|SSL|UDP)"
    r"|connect_ex|getPage|smtplib|ftplib|getaddrinfo|gethostbyname"
)
_CLIENTS = {
    "features/sharing/client.py": {"HostnameEndpoint", "UNIXClientEndpoint"},
    "backends/connect/dial.py": {"clientFromString"},  # to servers
    "backends/names/question.py": {"TCP4ClientEndpoint"},
    "cli/check.py": {"getaddrinfo"},  # an address of this machine
    "cli/init/__init__.py": {"create_connection"},
    "cli/remote/ask.py": {"HTTPConnection"},  # a service of this machine
    "features/test/sending.py": {"getaddrinfo"},  # what is tested
    "net/http.py": {"Agent", "HostnameEndpoint", "TCP4ClientEndpoint", "UNIXClientEndpoint"},
    "net/sockets/client.py": {"connect_ex"},
    "net/sockets/handoff.py": {"connect_ex"},
    "serving/endpoints.py": {"clientFromString"},  # to read it
    "serving/listen_addresses.py": {"getaddrinfo"},
}
"""What connects to others, by module. A new source is asked by `net/http.py` or the like, which has deadlines and bounds, and is a `Kind`."""


def _clients(code: ast.Module) -> Iterator[str]:
    for node in ast.walk(code):
        names = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [part for alias in node.names for part in alias.name.split(".")]
            names += (getattr(node, "module", None) or "").split(".")
        elif isinstance(node, ast.Call):
            names = [getattr(node.func, "attr", getattr(node.func, "id", ""))]
        yield from (name for name in names if _CONNECTS.fullmatch(name))
