"""The table of a connection's stages is whole, and says no more than the code does."""

import inspect
import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from txmux.tcp.connection import _STEPS, MuxProtocol
from txmux.tcp.stage import Stage
from txmux.tcp.transitions import CHOICES, TRANSITIONS, Ended, TurnedAway
from txmux.telemetry.record import STATES

_OUTCOMES = {outcome.__name__: outcome for row in TRANSITIONS.values() for outcome in row}


def made_by(code: Callable[..., object]) -> set[object]:
    names = re.findall(r"\b([A-Z]\w+)\(", inspect.getsource(code))
    return {_OUTCOMES[name] for name in names if name in _OUTCOMES}


class TransitionsTest(SynchronousTestCase):
    def test_every_state_and_choice_is_in_the_table_and_reachable(self) -> None:
        self.assertEqual(set(TRANSITIONS), {"accepted", *CHOICES, *STATES, "over"})
        reached = {node for row in TRANSITIONS.values() for node in row.values()}
        self.assertEqual(reached, set(TRANSITIONS) - {"accepted"})
        self.assertEqual(set(_STEPS), reached)

    def test_every_outcome_of_a_stage_or_choice_is_in_the_table(self) -> None:
        begun = made_by(MuxProtocol.connectionMade) | made_by(MuxProtocol.adopt)
        self.assertEqual(set(TRANSITIONS["accepted"]), begun)
        for node, step in _STEPS.items():
            made = made_by(step)
            if isinstance(step, type):
                assert issubclass(step, Stage)
                self.assertEqual(step.state, node)
                made |= {Ended} if step.connection_lost is Stage.connection_lost else set()
                made |= {TurnedAway} if step.abort is Stage.abort else set()
                made |= {TurnedAway} if "super().abort" in inspect.getsource(step) else set()
            self.assertEqual((node, set(TRANSITIONS[node])), (node, made))
