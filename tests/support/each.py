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


"""The same tests in several ways."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

_Case = TypeVar("_Case", bound=type[Any])


def with_each(attribute: str, *values: object) -> Callable[[_Case], _Case]:
    """Have each test of a class run with an attribute of each of these values, set up anew."""

    def decorate(its: _Case) -> _Case:
        setattr(its, attribute, values[0])
        for name, test in [*vars(its).items()]:
            if name.startswith("test_"):
                setattr(its, name, _repeated(test, attribute, values[1:]))
        return its

    return decorate


def _repeated(test: Any, attribute: str, further: tuple[object, ...]) -> Any:
    @wraps(test)
    def run(self: Any) -> None:
        test(self)
        for value in further:
            setattr(self, attribute, value)
            self.setUp()
            test(self)

    return run
