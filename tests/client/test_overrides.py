from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.pool.server_health import ServerOverride
from txmux.client.overrides import Overrides, ServerState


class ServerTests(SynchronousTestCase):
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
