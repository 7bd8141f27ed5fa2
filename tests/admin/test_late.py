"""A worker that hangs keeps no request waiting but the first one."""

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.support.kit import AdminCase, change_constants, halted, turn
from tests.support.supervised import channel_of
from txmux.control.broadcast import ANSWER_TIMEOUT
from txmux.rules.optional import load

_PAGE = ("/", "/?connection=1-1") if load("page") else ()
_PATHS = *_PAGE, "/metrics", "/readyz"
_LISTS = "connections", "clients", "backends", "routes", "status"
_LATE = "worker 2: does not answer"
_RULES = """[listen x]
endpoint = 127.0.0.1:0
[route all]
match = any
backend = b
[backend b]
server = 127.0.0.1:1
"""


class LateTest(AdminCase):
    async def names_the_late_one(self) -> None:
        self.assertEqual((await self.get("/readyz")).status, 200)
        status = (await self.get("/api/status")).json
        self.assertEqual(status["incomplete"], [_LATE])
        self.assertEqual([one["connections"] for one in status["workers"]], [0, None])
        self.assertEqual(len({one["sandbox"] for one in status["workers"]}), 1)
        for path in _PAGE[:1]:
            self.assertIn(f"Not all is shown: {_LATE}.", (await self.get(path)).body.decode())
        one = await self.get("/api/connections/1-1")
        self.assertEqual((one.status, one.headers["txmux-missing"]), (404, _LATE))
        self.assertIn(f"or it is one of a worker without an answer: {_LATE}", one.error)
        closed = (await self.post("/api/connections/close", {"route": "all"})).json
        found = (closed["incomplete"], closed["changes"])
        self.assertEqual(found, ([_LATE], f"0 connections ended; not yet: {_LATE}"))

    async def test_all_is_asked_at_once_and_nothing_twice(self) -> None:
        """With a clock of its own for the worker, which a test advances once, whoever asks something after that waits for ever."""
        await self.start("workers = 2", _RULES)
        for name in ("look", "sample"):
            self.patch(self.running.control, name, partial(turn))
        worker = self.supervisor.pool.workers[1]
        clock = Clock()
        change_constants(self, channel_of(worker), clock=clock)
        for path in ("/api/status", "/api/connections/1-1", "/api/clients", *_PATHS):
            with halted([worker.pid]):
                await turn()
                await turn()  # what it has sent is read
                asking = Deferred.fromCoroutine(self.get(path))
                await self.until(clock.getDelayedCalls)
                clock.advance(ANSWER_TIMEOUT)
                await asking
                for other in (path, *_PATHS):
                    await self.get(other)
                for name in _LISTS:
                    late = await self.get(f"/api/{name}")
                    self.assertEqual(late.headers["txmux-missing"], _LATE)
                await self.names_the_late_one()
                self.assertEqual(clock.getDelayedCalls(), [])
            await self.until(lambda: not worker.is_late)
            self.assertNotIn("txmux-missing", (await self.get("/api/backends")).headers)
