"""Which connections are meant: options, or words as they are in a query of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.cli.remote.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

_FILTERS = {
    "listener": ("NAME", "of this listener"),
    "route": ("NAME", "of this route; - is those that no route took"),
    "backend": ("NAME", "of this backend"),
    "server": ("ADDRESS", "of this server, as the list has it"),
    "client": ("NETWORK", "from this address or network, or unix"),
    "state": ("STATE", "in this state, as the list has it"),
    "older": ("DURATION", "that began at least so long ago: 90s, 5m, 2h"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add an option for each filter."""
    for name, (value, meaning) in _FILTERS.items():
        parser.add_argument(f"--{name}", metavar=value, help=f"only those {meaning}")


def read(arguments: argparse.Namespace, words: Iterable[str]) -> dict[str, str]:
    """Return the filters that are set.

    Args:
        arguments: Has the options.
        words: Further ones, ``NAME=VALUE``.

    Raises:
        UsageError: A word is not a filter.
    """
    return _with({name: getattr(arguments, name) for name in _FILTERS}, words)


def of_words(words: Iterable[str]) -> dict[str, str]:
    """Return the filters that words are.

    Args:
        words: ``NAME=VALUE`` each.

    Raises:
        UsageError: A word is not a filter.
    """
    return _with(dict.fromkeys(_FILTERS), words)


def _with(found: dict[str, str | None], words: Iterable[str]) -> dict[str, str]:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _FILTERS:
            raise UsageError(f"{word!r} is not a filter; write one of {'=, '.join(_FILTERS)}=")
        if found[name] is not None:
            raise UsageError(f"{name!r} is given twice; keep one")
        found[name] = value
    return {name: value for name, value in found.items() if value is not None}
