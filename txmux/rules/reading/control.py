"""Where the service is watched and controlled: endpoints of ``admin`` and ``metrics``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from txmux.rules.problems import InvalidValueError, joined
from txmux.rules.reading.endpoints import listening, short_form
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.rules.reading.values import socket_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TCP = frozenset({"tcp", "tcp6"})
_WORDS = frozenset({"auto", "off", "none", "on", "no", "yes", "true", "false"})
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\:="})


def control_endpoint(text: str, home: Path, words: Sequence[str]) -> str | None:
    """Read an endpoint.

    Args:
        text: ``ADDRESS:PORT``, ``:PORT``, ``unix:/path``, or Twisted's form of one of these; or ``off``.
        home: Where a relative path starts.
        words: What may be written instead.

    Returns:
        The endpoint, with the whole path; ``None`` for ``off``.

    Raises:
        InvalidValueError: What is wrong with it.
    """
    if text == "off":
        return None
    if text.casefold() in _WORDS:
        raise InvalidValueError(
            f"{text!r} is not an endpoint; write {joined(words)}, unix:/path or ADDRESS:PORT"
        )
    if short_form(listening(text)) is not None:
        return text
    arguments = split_arguments(text)
    kind = arguments.kind.lower()
    if kind in _TCP:
        return text
    if kind != "unix":
        raise InvalidValueError(
            f"an endpoint of type {kind!r} cannot be had here; write unix:/path or ADDRESS:PORT"
        )
    named = SERVER[kind].check(arguments)
    # Absolute, since the service may go to another folder.
    path = socket_path(os.path.abspath(home / named.pop("address")))  # noqa: PTH100 - links stay
    options = "".join(f":{name}={value}" for name, value in named.items())
    return f"unix:{str(path).translate(_SPECIAL)}{options}"


def is_by_tcp(endpoint: str | None) -> bool:
    return endpoint not in {None, "auto"} and not str(endpoint).startswith("unix:")


def address_of(endpoint: str) -> str:
    """Return the address of an endpoint of TCP; empty if it is every address."""
    short = short_form(endpoint)
    if short is not None:
        return short[0]
    arguments = split_arguments(endpoint)
    return SERVER[arguments.kind.lower()].check(arguments).get("interface", "")
