"""How the steps of work on connections grow with those that are live, and with clients that are held."""

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.support.growth import AT_ALL, AT_NONE, finished, growth
from tests.support.kit import PATIENCE, ServiceTestCase, VirtualTime, change_constants
from tests.support.peers import reset
from txmux.control.worker_answers import WorkerAnswers
from txmux.net import turns

_FEW, _MANY = 80, 160  # 480 descriptors of the usual 1024
_SECONDS = [1.0] * 8
_RULES = (
    "[txmux]\naccess_log = off\ndrain_timeout = 8s\n[listen public]\nendpoint = 127.0.0.1:0\n"
    "[route ssh]\nmatch = ssh\nbackend = b\n[backend b]\nserver = 127.0.0.1:{port}\n"
)


@pytest.mark.by_turns(each=True)
class GrowthTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, turns, _PIECE=float("inf"))
        self.server = self.enterContext(socket.create_server(("127.0.0.1", 0), backlog=2 * _MANY))
        self.server.settimeout(0)
        # No reactor runs here
        self.clock = VirtualTime(callFromThread=lambda call: self.clock.callLater(0, call))
        text = _RULES.format(port=self.server.getsockname()[1])
        [self.port] = self.run_service(text, use=self.clock)
        assert self.running.serving is not None
        self.serving: Any = self.running.serving
        self.answers = WorkerAnswers(self.running.serving)
        self.pool = self.serving.upstreams.find("b").pool
        self.clients: list[socket.socket] = []
        self.addCleanup(self._end_all)

    def _end_all(self) -> None:
        self.serving.end_all()
        while self.clients:
            self.clients.pop().close()
        with contextlib.suppress(BlockingIOError):
            while True:
                self.server.accept()[0].close()

    def _serve_until(self, condition: Callable[[], bool], passing: float = 0) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if condition():
                return
            # Sockets are ready at once, unless the machine is busy; or else timers are due.
            self.serving.runtime.poller.serve_ready(0 if passing else 0.01)
            self.clock.advance(passing)
        self.fail("it takes too long")

    def _served(self) -> int:
        return len(self.pool.waiting) + sum(member.connections for member in self.pool.members)

    def _one_comes(self) -> None:
        served = self._served() + 1
        self.clients.append(client := socket.create_connection(("127.0.0.1", self.port)))
        client.sendall(b"SSH-2.0-a\r\n")
        self._serve_until(lambda: self._served() == served)

    def _one_comes_and_leaves(self) -> None:
        served = self._served()
        self._one_comes()
        reset(self.clients.pop())
        self._serve_until(lambda: self._served() == served, 0.02)

    def _release(self) -> None:
        self.serving.apply_overrides({})
        self._serve_until(lambda: not self.pool.waiting, 0.05)

    def _work(self, action: Callable[[], object], count: int, *, held: bool) -> Any:
        if self._served() > count or bool(self.pool.waiting) is not held:
            self._end_all()
        self.serving.apply_overrides({"held": {"b": None} if held else {}})
        while self._served() < count:
            self._one_comes()
        self.assertEqual(len(self.pool.waiting), held * count)
        self.clock.advance(1)  # so that no check of all connections is due for a second
        finished(self.answers.clients())  # it counts those that have ended
        return action

    def _assert_growth(self, *, held: bool) -> None:
        works: dict[str, Callable[[], object]] = {
            "list": lambda: finished(self.answers.connections({}, 9999)),
            "part of the list": lambda: finished(self.answers.connections({}, 50)),
            "sources": lambda: finished(self.answers.clients()),
            "status": lambda: finished(self.serving.status()),
            "count": lambda: finished(self.answers.count(gauges=True)),
            "one more": self._one_comes_and_leaves,
            "end": lambda: finished(self.answers.close({})),
            "drain": lambda: (self.serving.stop_waiting(), *map(self.clock.advance, _SECONDS)),
        }
        if held:
            works["release"] = self._release
        works_of = {name: partial(self._work, action, held=held) for name, action in works.items()}
        found = {name: growth(work, _FEW, _MANY) for name, work in works_of.items()}
        most = {**dict.fromkeys(works, AT_ALL), "one more": AT_NONE}
        self.assertEqual({name: grown for name, grown in found.items() if grown > most[name]}, {})

    def test_live_connections(self) -> None:
        self._assert_growth(held=False)

    def test_held_clients(self) -> None:
        self._assert_growth(held=True)
