from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.supervisor.sent_rules import RemovedRoutes
from txmux.rules.model import Backend, Route, Rules, Settings

_NAMES = "a", "b", "c"


class RemovedRoutesTests(SynchronousTestCase):
    def test_back_in_the_meantime(self) -> None:
        """What is back ends nowhere, also in processes of older rules, and what is removed again has the whole time again."""
        sent: list[Any] = []
        pool: Any = SimpleNamespace(send_to_all=lambda _, **fields: sent.append(fields))
        rules = Rules(
            Path("x.ini"),
            Settings(),
            (),
            (Route("b", (), None), Route("c", (), None)),
            {"a": Backend("a", ())},
        )
        removed = RemovedRoutes(pool)
        removed.end_later(0, {"routes": [*_NAMES], "backends": [*_NAMES], "version": 2})
        removed.commit(rules)
        removed.end_later(60, {"routes": ["c"], "backends": ["a"], "version": 4})
        removed.look()
        self.assertEqual(sent, [{"routes": ["a"], "backends": ["b", "c"], "version": 2}])
        [(_, left)] = removed.rows
        self.assertEqual(left, {"routes": ["c"], "backends": ["a"], "version": 4})
