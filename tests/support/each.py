"""Tests that run with each of some values, one after the other."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def for_each(name: str, values: Sequence[Any]) -> Callable[[Any], Any]:
    """Have each test of a class, or a single one, run with each value of an attribute, which is there for `setUp`."""

    def decorate(its: Any) -> Any:
        if not isinstance(its, type):
            return _run_with(its, name, values)
        setattr(its, name, values[0])
        for key in dir(its):
            if key.startswith("test_"):
                setattr(its, key, _run_with(getattr(its, key), name, values))
        return its

    return decorate


def _run_with(test: Any, name: str, values: Sequence[Any]) -> Any:
    @contextmanager
    def prepared(case: Any, number: int, value: object) -> Iterator[None]:
        setattr(case, name, value)
        if number:
            case.setUp()
        try:
            yield
        except BaseException as error:
            error.add_note(f"with {name} = {value}")
            raise

    @functools.wraps(test)
    async def run_async(self: Any) -> None:
        for number, value in enumerate(values):
            with prepared(self, number, value):
                await test(self)

    @functools.wraps(test)
    def run(self: Any) -> None:
        for number, value in enumerate(values):
            with prepared(self, number, value):
                test(self)

    return run_async if inspect.iscoroutinefunction(test) else run
