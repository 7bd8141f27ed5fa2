"""Long work in pieces."""

import time
from collections.abc import Generator

from twisted.trial.unittest import TestCase

from tests.support.peers import reactor
from txmux.net.turns import Turns


class TurnsTest(TestCase):
    async def test_run(self) -> None:
        """Others have their turn again and again while something long runs, which gives its result in the end."""
        turns: list[int] = []

        def steps() -> Generator[None, None, str]:
            for number in range(20):
                until = time.perf_counter() + 0.002
                while time.perf_counter() < until:
                    pass
                if not number % 5:
                    reactor.callLater(0, turns.append, number)
                yield
            self.assertGreaterEqual(len(turns), 3)
            return "done"

        self.assertEqual(await Turns().run(steps()), "done")
