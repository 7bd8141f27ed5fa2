"""The table of a connection's stages is whole, and says no more than the code does."""

import inspect
import re
from collections.abc import Callable
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.installed import STAGES
from txmux.tcp import connection, socket_connection
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.socket_connection import SocketConnection
from txmux.tcp.stage import Stage
from txmux.tcp.transitions import CHOICES, TRANSITIONS, Finished, Node, TurnedAway
from txmux.telemetry.documents import STATES

_OUTCOMES = {outcome.__name__: outcome for row in TRANSITIONS.values() for outcome in row}
_OF_FEATURES = {
    stage.state: vars(import_module(stage.maker.partition(":")[0]))
    for stages in STAGES.values()
    for stage in stages
}
_STEPS = {
    **MuxProtocol._steps,
    **{
        state: next(one for one in names.values() if getattr(one, "state", "") == state)
        for state, names in _OF_FEATURES.items()
    },
}
_WITHOUT_STAGE: dict[Node, tuple[Callable[..., object], ...]] = {
    "introduction": (SocketConnection._await_header, SocketConnection._read_header),
    "peeking": (
        SocketConnection._peek, SocketConnection._peeking, SocketConnection._read,
        SocketConnection._detect,
    ),
    "connecting": (
        SocketConnection._connect, SocketConnection._send_first, SocketConnection._failed,
        SocketConnection._connecting,
    ),
    "awaiting-retry": (
        SocketConnection._await_answer,
        SocketConnection._takes_hello,
        SocketConnection._awaiting_retry,
    ),
    "relaying": (SocketConnection._relay, SocketConnection._relaying),
}  # fmt: skip
"""The functions that stand in for the stage of a state."""


def made_by(code: Callable[..., object]) -> set[object]:
    source = inspect.getsource(code)
    names = re.findall(r"\b([A-Z]\w+)\(", source)
    constants = {
        type(getattr(module, name, None))
        for name in re.findall(r"\b_[A-Z_]+\b", source)
        for module in (connection, socket_connection)
    }
    return {_OUTCOMES[name] for name in names if name in _OUTCOMES} | {
        outcome for outcome in constants if outcome in _OUTCOMES.values()
    }


class TransitionsTest(SynchronousTestCase):
    def test_every_state_and_choice_is_in_the_table_and_reachable(self) -> None:
        self.assertEqual(set(TRANSITIONS), {"accepted", *CHOICES, *STATES, "over"})
        reached = {node for row in TRANSITIONS.values() for node in row.values()}
        reached |= {*_OF_FEATURES}
        self.assertEqual(reached, set(TRANSITIONS) - {"accepted"})
        self.assertEqual(set(_STEPS), reached)

    def test_every_outcome_of_a_stage_or_choice_is_in_the_table(self) -> None:
        begun = made_by(MuxProtocol.begin) | made_by(MuxProtocol.adopt)
        self.assertEqual(set(TRANSITIONS["accepted"]), begun)
        for node, step in _STEPS.items():
            made = made_by(step)
            if isinstance(step, type):
                assert issubclass(step, Stage)
                made = made.union(*map(made_by, step.__mro__[: step.__mro__.index(Stage)]))
                self.assertEqual(step.state, node)
                made |= {Finished} if step.connection_lost is Stage.connection_lost else set()
                made |= {TurnedAway} if step.abort is Stage.abort else set()
                made |= {TurnedAway} if "super().abort" in inspect.getsource(step) else set()
                if "return self._then" in inspect.getsource(
                    step
                ):  # what a feature's stage is given
                    made |= set(TRANSITIONS[node]) - {Finished, TurnedAway}
            self.assertEqual((node, set(TRANSITIONS[node])), (node, made))

    def test_without_a_stage_the_same_follows(self) -> None:
        """What stands in for a stage has no outcome that the stage has not, and makes no other stage."""
        for node, functions in _WITHOUT_STAGE.items():
            made = set().union(*map(made_by, functions))
            stages = {
                name
                for code in functions
                for name in re.findall(r"\b([A-Z]\w+)\(self[,)]", inspect.getsource(code))
            }
            self.assertTrue(made <= set(TRANSITIONS[node]), (node, made))
            self.assertEqual({_STEPS[node].__name__}, stages)
            self.assertIs(SocketConnection._steps[node], functions[0])
        self.assertEqual(
            {
                node
                for node, step in MuxProtocol._steps.items()
                if SocketConnection._steps[node] is not step
            },
            {*_WITHOUT_STAGE},
        )
