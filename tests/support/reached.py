"""Fails a test that passes without asserting: few examples of a property reach an assertion, or a loop has no turn.

An assertion is a call of a method ``assert…`` of a test case. A property without one says that nothing is raised.
"""

import __future__

import ast
import functools
import inspect
from collections.abc import Callable, Generator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from unittest import TestCase

import pytest
from twisted.trial.unittest import SynchronousTestCase

__unittest = True  # unittest leaves out frames of this module where it shows a failure

_SHARE, _SHARE_OF_FEW, _MANY = 5, 15, 50
"""Of so many examples one has to reach an assertion, and of how many where there are fewer than `_MANY`: these chance may have chosen badly."""

_TURN = "_has_a_turn"
"""What loops call that assert, by a name in the test's module."""


class Reached:
    def __init__(self) -> None:
        self._count = 0
        for case in (TestCase, *SynchronousTestCase.__mro__):
            for name, method in [*vars(case).items()]:
                if name.startswith("assert") and not hasattr(method, "__wrapped__"):
                    setattr(case, name, self._counting(method))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        test: Any = getattr(item, "obj", None)
        given: Any = getattr(test, "hypothesis", None)
        inner = given.inner_test if given else test
        asserts, idle = _look(inspect.unwrap(getattr(inner, "__func__", inner)))
        reached: list[bool] = []

        def note(*arguments: Any, **named: Any) -> object:
            before = self._count
            result = inner(*arguments, **named)
            reached.append(self._count > before)
            return result

        if given and asserts:
            given.inner_test = functools.wraps(inner)(note)
        try:
            result = yield
        finally:
            if given:
                given.inner_test = inner
        # A loop of a property may have a turn in few examples, and none in these; `script/test --coverage` names one that never has.
        said = [f"the loop in line {line} has no turn" for line in sorted(idle) if not given]
        if sum(reached) < len(reached) // (_SHARE if len(reached) >= _MANY else _SHARE_OF_FEW):
            said.append(f"{sum(reached)} of {len(reached)} examples reach an assertion")
        # A `unittest.TestCase` that has failed, or was skipped, raises nothing.
        if said and not getattr(item, "_excinfo", None):
            pytest.fail("; ".join(said), pytrace=False)
        return result

    def _counting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def count(*arguments: Any, **named: Any) -> Any:
            self._count += 1
            return method(*arguments, **named)

        return count


def _look(test: object) -> tuple[bool, set[int]]:
    """Return whether a test asserts, and the lines of its loops that do, from which their turns remove them."""
    if not isinstance(test, FunctionType):
        return False, set()
    asserts, lines = _have_loops_call(test)
    idle = {*lines}

    def has_a_turn(line: int) -> bool:
        idle.discard(line)
        return True

    test.__globals__[_TURN] = has_a_turn
    return asserts, idle


@functools.cache
def _have_loops_call(test: FunctionType) -> tuple[bool, set[int]]:
    code = test.__code__
    node = _functions(code.co_filename).get((code.co_name, code.co_firstlineno))
    if node is None:
        return False, set()
    loops = _Loops()
    loops.visit(node)
    if loops.lines:
        node.decorator_list.clear()
        # Within a function that has the variables from around the test, as `__class__`, which `super()` needs.
        around: Any = ast.parse(f"def _({', '.join(code.co_freevars)}): pass")
        around.body[0].body = [node]
        flags = code.co_flags & __future__.annotations.compiler_flag
        around = ast.fix_missing_locations(around)
        made: Any = compile(around, code.co_filename, "exec", flags, dont_inherit=True)
        for _ in range(2):
            [made] = [one for one in made.co_consts if isinstance(one, CodeType)]
        test.__code__ = made
    return _asserts(node), loops.lines


class _Loops(ast.NodeTransformer):
    """Has loops that assert call `_TURN` with their lines, and what is asserted of all that there is."""

    def __init__(self) -> None:
        self.lines = set[int]()

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        if any(map(_asserts, node.body)):
            node.body.insert(0, ast.Expr(self._turn(node)))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        for one in ast.walk(node) if _is_assertion(node) else ():
            match one:
                case ast.Call(ast.Name("all"), [ast.GeneratorExp(_, [first, *_])]):
                    first.ifs.insert(0, self._turn(one))
        return node

    def _turn(self, loop: ast.stmt | ast.expr) -> ast.expr:
        self.lines.add(loop.lineno)
        return ast.copy_location(ast.parse(f"{_TURN}({loop.lineno})", mode="eval").body, loop)


def _asserts(node: ast.AST) -> bool:
    return any(map(_is_assertion, ast.walk(node)))


def _is_assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self.assert")


@functools.cache
def _functions(path: str) -> dict[tuple[str, int], Any]:
    nodes = [*ast.walk(ast.parse(Path(path).read_bytes()))]
    found = [one for one in nodes if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {(one.name, [*one.decorator_list, one][0].lineno): one for one in found}
