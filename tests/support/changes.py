"""What a test changes of its own process until it ends; `set_limits` changes constants of the services that it starts."""

import os
import sys
import time
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.registry import PluginProblem, Registry
from txmux.interfaces import IProtocolMatcher
from txmux.processes.worker import landlock


def change_constants(test: SynchronousTestCase, module: object, **values: object) -> None:
    for name, value in values.items():
        test.patch(module, name, value)


def change_environment(test: SynchronousTestCase, **variables: str | None) -> None:
    """Set variables, also for the programs that it starts; `None` removes one."""
    every = {**os.environ, **variables}
    left = {name: value for name, value in every.items() if value is not None}
    test.enterContext(patch.dict(os.environ, left, clear=True))


def lack_modules(test: SynchronousTestCase, *names: str) -> None:
    """Have imports of modules fail, as if they were not installed."""
    test.enterContext(patch.dict(sys.modules, dict.fromkeys(names)))


def install(
    test: SynchronousTestCase, module: object, *matchers: IProtocolMatcher, problem: str = ""
) -> None:
    """Have a module find these matchers, and one plugin that has a problem."""
    problems = (PluginProblem(problem),) * bool(problem)
    registry = Registry({matcher.name: matcher for matcher in matchers}, problems)
    change_constants(test, module, installed_matchers=lambda: registry)


def lack_landlock(test: SynchronousTestCase) -> None:
    """Have the kernel, for this process, lack it or forbid its use."""
    change_constants(test, landlock, abi=lambda: 0)


def set_wall_clock(test: SynchronousTestCase, now: float) -> None:
    change_constants(test, time, time=lambda: now)


def pretend_user(test: SynchronousTestCase, number: int) -> None:
    """Have this process take itself for a user's; what the kernel allows stays as it is."""
    change_constants(test, os, geteuid=lambda: number)
