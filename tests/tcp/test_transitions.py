"""The table of a connection's stages is whole."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.tcp.connection import _STEPS
from txmux.tcp.stage import Stage
from txmux.tcp.transitions import CHOICES, TRANSITIONS, Ended
from txmux.telemetry.record import STATES


class TransitionsTest(SynchronousTestCase):
    """What the machine relies on."""

    def test_every_state(self) -> None:
        """The table has every state and choice, and each of them can be reached."""
        self.assertEqual(set(TRANSITIONS), {"accepted", *CHOICES, *STATES, "over"})
        reached = {node for outcomes in TRANSITIONS.values() for node in outcomes.values()}
        self.assertEqual(reached, set(TRANSITIONS) - {"accepted"})
        self.assertEqual(set(_STEPS), reached)

    def test_every_stage(self) -> None:
        """A state is the one that its stage says it is; choices and the end are no stages, and any stage may end."""
        for node, step in _STEPS.items():
            is_stage = isinstance(step, type)
            self.assertEqual(is_stage, node in STATES)
            self.assertEqual(is_stage, Ended in TRANSITIONS[node])
            if isinstance(step, type):
                assert issubclass(step, Stage)
                self.assertEqual(step.state, node)
