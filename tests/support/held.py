"""How much an object holds: what is bounded, or is to be forgotten, does not grow."""

import gc
from collections import deque
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType

from twisted.internet.task import Clock
from twisted.logger import Logger

_CODE = type, ModuleType, FunctionType, BuiltinFunctionType


def held_by(one: object) -> int:
    """Count the objects that can be reached from one, without what all have in common, and the items of their containers."""
    found, rest = {id(one): one}, [one]
    while rest:
        its = rest.pop()
        keys = its if isinstance(its, dict) else ()  # texts are no objects of the collector
        for other in (*gc.get_referents(its), *keys):
            if id(other) not in found and not isinstance(
                other, (*_CODE, Logger, Clock, int, float, NoneType)
            ):
                found[id(other)] = other
                rest.append(other)
    containers = (its for its in found.values() if isinstance(its, (dict, list, set, tuple, deque)))
    return len(found) + sum(map(len, containers))
