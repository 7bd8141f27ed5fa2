"""Rules that are options of `txmux run`, in place of a file."""

from __future__ import annotations

import argparse
import pkgutil
import shlex
from typing import TYPE_CHECKING, Any

from txmux import matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from txmux.interfaces import IProtocolMatcher

NAMES = ("listen", "default", "silent", "user", "workers", "print")
"""Options without a rules file, but for those of protocols."""

_NOT = {"any"}  # which is what --default is for


class _AddRoute(argparse.Action):
    """Keeps the order in which several options are given."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _option: str | None = None,
    ) -> None:
        namespace.routes = [*namespace.routes, (self.dest, values)]


def add_routes(group: argparse._ArgumentGroup) -> None:
    """Add an option for each protocol whose matcher needs no option; ``routes`` of the arguments, empty at first, gets names and values."""
    for matcher in plain_matchers():
        group.add_argument(
            f"--{matcher.name}",
            metavar="SERVER",
            action=_AddRoute,
            default=argparse.SUPPRESS,
            help=matcher.summary.replace("%", "%%"),
        )


def plain_matchers() -> Iterator[IProtocolMatcher]:
    """Yield the matchers of this package that need no option."""
    own = {module.name for module in pkgutil.iter_modules(matchers.__path__)} - _NOT
    for name, matcher in installed_matchers().items():
        if name in own and Transport.TCP in transports_of(matcher):
            try:
                matcher.predicate({})
            except OptionError:
                continue
            yield matcher


def text_of(arguments: argparse.Namespace) -> str:
    words = [shlex.join(("--listen", endpoint)) for endpoint in arguments.listen]
    words += [shlex.join((f"--{name}", server)) for name, server in arguments.routes]
    words += [
        shlex.join((f"--{name}", value))
        for name in ("silent", "default", "user", "workers")
        if (value := getattr(arguments, name)) is not None
    ]
    lines = [f"# txmux run {' '.join(words)}"]
    settings = [(name, getattr(arguments, name)) for name in ("user", "workers")]
    if any(value is not None for _, value in settings):
        lines += ["", "[txmux]", *_keys(settings)]
    lines += ["", "[listen public]"]
    if len(arguments.listen) == 1:
        lines += _keys([("endpoint", arguments.listen[0])])
    else:
        lines += ["endpoint =", *(f"    {_value(endpoint)}" for endpoint in arguments.listen)]
    lines += _keys([("silent", arguments.silent), ("default", arguments.default)])
    for name, server in arguments.routes:
        lines += ["", f"[route {name}]", *_keys([("match", name), ("backend", server)])]
    return "".join(f"{line}\n" for line in lines)


def _keys(values: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    given = [(key, value) for key, value in values if value is not None]
    width = max((len(key) for key, _ in given), default=0)
    for key, value in given:
        yield f"{key:{width}} = {_value(value)}".rstrip()


def _value(text: str) -> str:
    """Write a value so that nothing in it stands for something else."""
    return text.replace("$", "$$")
