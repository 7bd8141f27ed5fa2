"""Holds among the overrides: one for each backend, with ends that another process reads by its own clock."""

import json
import math

from twisted.trial.unittest import SynchronousTestCase

from txmux.client.overrides import Overrides


class HoldTests(SynchronousTestCase):
    def test_one_for_each_backend(self) -> None:
        held = Overrides().with_hold("a", 5.0, 9.0).with_hold("b", 5.0, math.inf)
        self.assertEqual(held.held, {"a": 9.0, "b": math.inf})
        self.assertEqual(held.with_hold("a", 6.0, 12.0).held, {"a": 12.0, "b": math.inf})
        self.assertEqual(held.with_hold("a", 6.0, 6.0).held, {"b": math.inf})
        held = Overrides(held={"a": 9.0, "b": math.inf})  # another process gets what is left
        told = json.loads(json.dumps(held.as_json(5.0)))
        self.assertEqual(told["held"], {"a": 4.0, "b": None})
        self.assertEqual(Overrides.read(told, 105.0).held, {"a": 109.0, "b": math.inf})
        self.assertEqual(Overrides.read(held.as_json()), held)
