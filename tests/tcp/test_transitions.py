"""The table of a connection's stages is whole, and says no more than the code does."""

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pkgutil import iter_modules

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.installed import STAGES
from txmux.tcp import connection, fast_path, stages
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.stage import Stage
from txmux.tcp.states import STATES, State
from txmux.tcp.transitions import CHOICES, TRANSITIONS, Finished, Node, TurnedAway
from txmux.telemetry import documents

_OUTCOMES = {outcome.__name__: outcome for row in TRANSITIONS.values() for outcome in row}
_MODULES = [
    import_module(f"{stages.__name__}.{each.name}") for each in iter_modules(stages.__path__)
]
_OF_FEATURES = {
    stage.state: import_module(stage.maker.partition(":")[0])
    for stages in STAGES.values()
    for stage in stages
}
_STAGES: dict[Node, type[Stage]] = {
    cls.state: cls
    for module in (*_MODULES, *_OF_FEATURES.values())
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Stage) and cls.state in TRANSITIONS
    if cls.__module__ == module.__name__ and cls.state != "over"
}
_STEPS: dict[Node, Callable[..., object]] = {**MuxProtocol._steps, **_STAGES}


def functions_of(state: State) -> list[Callable[..., object]]:
    module = import_module(state.enter.__module__)
    functions = inspect.getmembers(module, inspect.isfunction)
    return [each for _, each in functions if each.__module__ == module.__name__]


def made_by(code: Callable[..., object]) -> set[object]:
    source = inspect.getsource(code)
    names = re.findall(r"\b([A-Z]\w+)\(", source)
    called = product((connection, fast_path), re.findall(r"\b_?[A-Z_]+\b", source))
    constants = {type(getattr(module, name, None)) for module, name in called}
    return {_OUTCOMES[name] for name in names if name in _OUTCOMES} | {
        outcome for outcome in constants if outcome in _OUTCOMES.values()
    }


class TransitionsTest(SynchronousTestCase):
    def test_every_state_and_choice_is_in_the_table_and_reachable(self) -> None:
        self.assertEqual(set(TRANSITIONS), {"accepted", *CHOICES, *documents.STATES, "over"})
        reached = {node for row in TRANSITIONS.values() for node in row.values()}
        reached |= {*_OF_FEATURES}
        self.assertEqual((reached, set(_STEPS)), (set(TRANSITIONS) - {"accepted"}, reached))

    def test_every_outcome_of_a_stage_or_choice_is_in_the_table(self) -> None:
        begun = made_by(MuxProtocol.begin) | made_by(MuxProtocol.adopt)
        self.assertEqual(set(TRANSITIONS["accepted"]), begun)
        for node, step in _STEPS.items():
            made = made_by(step)
            if node in STATES and node not in _STAGES:
                made = made.union(*map(made_by, functions_of(STATES[node])), {Finished, TurnedAway})
            if isinstance(step, type):
                assert issubclass(step, Stage)
                made = made.union(*map(made_by, step.__mro__[: step.__mro__.index(Stage)]))
                self.assertEqual(step.state, node)
                made |= {Finished} if step.connection_lost is Stage.connection_lost else set()
                made |= {TurnedAway} if step.abort is Stage.abort else set()
                made |= {TurnedAway} if "super().abort" in inspect.getsource(step) else set()
                # What a feature's stage is given.
                if "return self._then" in inspect.getsource(step):
                    made |= set(TRANSITIONS[node]) - {Finished, TurnedAway}
            self.assertEqual((node, set(TRANSITIONS[node])), (node, made))

    def test_without_a_stage_the_same_follows(self) -> None:
        """What stands in for a stage has no outcome that the stage has not, and makes no other stage."""
        both = {
            node: state for node, state in STATES.items()
            if state.make_stage and state.enter is not _STAGES[node]
        }  # fmt: skip
        self.assertGreater(len(both), 1)
        for node, state in both.items():
            functions = functions_of(state)
            self.assertIn(state.enter, functions)
            its = [cls for cls in _STAGES.values() if cls.__module__ == state.enter.__module__]
            others = {made for cls in its for made in TRANSITIONS[cls.state]}
            made = set().union(*map(made_by, functions))
            self.assertTrue(made <= others, (node, made))
            stages = {
                name
                for code in functions
                for name in re.findall(r"\b([A-Z]\w+)\(client[,)]", inspect.getsource(code))
            } & {cls.__name__ for cls in _STAGES.values()}
            self.assertEqual({_STAGES[node].__name__}, stages)
