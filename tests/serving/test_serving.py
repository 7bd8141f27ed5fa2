from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import Rules, Settings
from txmux.serving.serving import Serving


class SharedTest(SynchronousTestCase):
    def test_workers_divide_the_rate_at_which_waiting_clients_go_on(self) -> None:
        no_listener: Any = None
        first, second = (
            Rules(Path("rules"), Settings(workers=number), (), (), {}) for number in (4, 3)
        )
        for shared, numbers in ((True, [4, 3]), (False, [1, 1])):
            serving = Serving(first, None, Clock(), accepting=False, shared=shared)
            found = [serving.upstreams.known.processes]
            serving.commit(serving.prepare(second, {}, no_listener))
            self.assertEqual([*found, serving.upstreams.known.processes], numbers)
