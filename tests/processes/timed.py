"""A test case with real workers, and a clock of their supervisor that the test moves."""

from collections.abc import Callable

from twisted.internet.task import deferLater

from tests.interop.children import PATIENCE
from tests.support.mux import VirtualTime
from tests.support.peers import reactor
from tests.support.supervised import SupervisedTestCase
from txmux.processes.supervisor.worker import Worker

RULES = "[txmux]\nworkers = {}\n[listen x]\nendpoint = 127.0.0.1:0\n"


class TimedTestCase(SupervisedTestCase):
    """Runs a service with two workers.

    Attributes:
        time: Of the supervisor.
    """

    async def begin(self) -> list[int]:
        self.time = VirtualTime()
        await self.run_service(RULES.format(2), use=self.time)
        return self.pids()

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.supervisor.pool.workers]

    def starter(self) -> int:
        """Give the process of which workers are forked; 0 if there is none."""
        connection = self.supervisor.starter._connection
        return 0 if connection is None else connection._child.pid

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, in no virtual time; what is due at once is done."""
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), deadline, "it does not come about")
            self.time.advance(0)
            await deferLater(reactor, 0)

    async def pass_by(self, seconds: int, *workers: Worker, starter: bool = True) -> None:
        """Let seconds pass, in each of which these workers, and the starter, have the time to answer."""
        for _ in range(seconds):
            self.time.advance(1)
            await self.until(lambda: not any(worker._awaits_answer for worker in workers))
            await self.until(lambda: not starter or self.has_starter_answered())

    def has_starter_answered(self) -> bool:
        supervisor = self.running.supervisor  # None once the service has stopped
        connection = supervisor.starter._connection if supervisor is not None else None
        return connection is None or connection.is_idle

    async def starter_answers(self) -> None:
        starter = self.supervisor.starter
        starter.look()
        await self.until(lambda: starter._connection and starter._connection.is_idle)
