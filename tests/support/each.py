"""Tests that run with each of some values, one after the other."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase


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
    async def run_all(case: Any) -> None:
        for number, value in enumerate(values):
            while number and (cleanups := case._cleanups):
                clean, arguments, named = cleanups.pop()
                await _wait_for(clean(*arguments, **named))
            setattr(case, name, value)
            if number:
                await _wait_for(case.setUp())
            try:
                await _wait_for(test(case))
            except BaseException as error:
                error.add_note(f"with {name} = {value}")
                raise

    @functools.wraps(test)
    def run(self: Any) -> Any:
        if isinstance(self, TestCase):
            return Deferred.fromCoroutine(run_all(self))
        try:
            run_all(self).send(None)
        except StopIteration:
            return None
        raise TypeError("only a TestCase of twisted.trial.unittest can wait")

    return run


async def _wait_for(result: Any) -> None:
    if isinstance(result, Awaitable):
        await result
