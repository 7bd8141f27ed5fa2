import json
import math

from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.pool.server_health import ServerOverride
from txmux.client.overrides import Overrides, ServerState


class OverridesTests(SynchronousTestCase):
    def test_state_and_weight(self) -> None:
        """Each is changed by itself, and a server with those of the rules is not overridden."""
        overrides, of = Overrides(), ("web", "10.0.0.1:80")
        changes: tuple[tuple[ServerState | None, int | None, ServerOverride | None], ...] = (
            (None, 3, ServerOverride(weight=3)),
            ("drain", None, ServerOverride("drain", since=1.0, weight=3)),
            ("drain", None, ServerOverride("drain", since=1.0, weight=3)),
            (None, 0, ServerOverride("drain", since=1.0)),
            ("ready", None, None),
        )
        for state, weight, left in changes:
            overrides = overrides.with_server(*of, 1.0, state, weight)
            self.assertEqual(overrides.servers.get(of), left)

    def test_one_hold_for_each_backend(self) -> None:
        held = Overrides().with_hold("a", 5.0, 9.0).with_hold("b", 5.0, math.inf)
        self.assertEqual(held.held, {"a": 9.0, "b": math.inf})
        self.assertEqual(held.with_hold("a", 6.0, 12.0).held, {"a": 12.0, "b": math.inf})
        self.assertEqual(held.with_hold("a", 6.0, 6.0).held, {"b": math.inf})
        held = Overrides(held={"a": 9.0, "b": math.inf})  # another process gets what is left
        told = json.loads(json.dumps(held.as_json(5.0)))
        self.assertEqual(told["held"], {"a": 4.0, "b": None})
        self.assertEqual(Overrides.read(told, 105.0).held, {"a": 109.0, "b": math.inf})
        self.assertEqual(Overrides.read(held.as_json()), held)
