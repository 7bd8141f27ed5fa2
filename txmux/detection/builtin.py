"""The matchers that come with txmux, known by name before they are imported.

Rules name a few of them. To import all sixty at each start would cost more than reading the rules.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.interfaces import Option, Predicate

__all__ = ["BuiltIn"]


@implementer(IProtocolMatcher)
class BuiltIn:
    """A matcher in the module of ``txmux.matchers`` that has its name, imported as soon as more than that is asked for.

    Args:
        name: The matcher's.
        variable: What it is called in its module, if that is something else.
    """

    def __init__(self, name: str, variable: str = "") -> None:
        self.name = name
        self._module = name.replace("-", "_")
        self._variable = variable or self._module

    @cached_property
    def matcher(self) -> IProtocolMatcher:
        """The matcher itself."""
        module = importlib.import_module(f"txmux.matchers.{self._module}")
        found: IProtocolMatcher = getattr(module, self._variable)
        return found

    @property
    def summary(self) -> str:
        return self.matcher.summary

    @property
    def options(self) -> tuple[Option, ...]:
        return self.matcher.options

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate; see `IProtocolMatcher`."""
        return self.matcher.predicate(options)
