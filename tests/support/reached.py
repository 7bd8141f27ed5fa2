"""Fails a test that passes without asserting: few examples of a property reach an assertion, or a loop of assertions has no turn.

An assertion is a call of a method ``assert…`` of a test case. A property without one says that nothing is raised.
"""

import __future__

import ast
import functools
import inspect
from collections.abc import Callable, Generator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TypeAlias
from unittest import TestCase

import pytest
from twisted.trial.unittest import SynchronousTestCase

__unittest = True  # unittest leaves out frames of this module where it shows a failure

_SHARE = 5
"""Of so many examples one has to reach an assertion."""

_TURN = "_has_a_turn"
"""A function of the test's module that its loops call."""

_Test: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Reached:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self._count = 0
        for case in (TestCase, *SynchronousTestCase.__mro__):
            for name, method in [*vars(case).items()]:
                if name.startswith("assert") and not hasattr(method, "__wrapped__"):
                    setattr(case, name, self._counting(method))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        test: Any = getattr(item, "obj", None)
        property_: Any = getattr(test, "hypothesis", None)
        inner = property_.inner_test if property_ else test
        asserts, idle = _look(inspect.unwrap(getattr(inner, "__func__", inner)))
        reached: list[bool] = []
        if property_ and asserts:
            property_.inner_test = self._noting(inner, reached)
        try:
            result = yield
        finally:
            if property_:
                property_.inner_test = inner
        said = [f"the loop in line {line} has no turn" for line in sorted(idle)]
        if sum(reached) * _SHARE < len(reached):
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

    def _noting(self, test: Callable[..., object], reached: list[bool]) -> Callable[..., object]:
        @functools.wraps(test)
        def run(*arguments: Any, **named: Any) -> object:
            before = self._count
            result = test(*arguments, **named)
            reached.append(self._count > before)
            return result

        return run


def _look(test: object) -> tuple[bool, set[int]]:
    """Return whether a test asserts, and the lines of its loops that assert; from now on, a turn removes a line."""
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
    node = _tests(code.co_filename).get((code.co_name, code.co_firstlineno))
    if node is None:
        return False, set()
    loops = _Loops()
    loops.visit(node)
    if loops.lines:
        node.decorator_list.clear()
        # Within its class, by which private names are written, and a function that has the variables from around the test.
        owner = ast.ClassDef(f"_.{test.__qualname__}".split(".")[-2], [], [], [node], [])
        around: Any = ast.parse(f"def _({', '.join(code.co_freevars)}): pass")
        around.body[0].body = [owner]
        ast.fix_missing_locations(around)
        flags = code.co_flags & __future__.annotations.compiler_flag
        made: Any = compile(around, code.co_filename, "exec", flags, dont_inherit=True)
        for _ in range(3):
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
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith("assert")
    )


@functools.cache
def _tests(path: str) -> dict[tuple[str, int], _Test]:
    """Return the functions in a file, by name and first line."""
    nodes = [*ast.walk(ast.parse(Path(path).read_bytes()))]
    tests = [node for node in nodes if isinstance(node, _Test)]
    return {(one.name, [*one.decorator_list, one][0].lineno): one for one in tests}
