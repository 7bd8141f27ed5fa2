"""``shared_limits = redis://HOST:PORT/DB``."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from txmux.rules.model.settings import Store
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.key import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.rules.reading.context import Reading

_SCHEMES: Mapping[str, bool] = {"redis": False, "rediss": True}
_DATABASE = re.compile(r"/?([0-9]{0,4})")
_EXAMPLE = "write for example 'redis://10.0.0.9:6379/0', 'rediss://redis.example.com' or 'unix:/run/redis/redis.sock'"


def _store(reading: Reading, text: str) -> Store:
    scheme, colon, rest = text.partition(":")
    found = None
    if colon and scheme == "unix":
        found = _at_path(reading, text, rest)
    elif scheme in _SCHEMES:
        try:
            found = _at_host(text, urlsplit(text))
        except ValueError:
            found = None
    if found is None:
        raise InvalidValueError(f"{text!r} is not the address of a Redis; {_EXAMPLE}")
    if not reading.alone and importlib.util.find_spec("txredisapi") is None:
        raise InvalidValueError(
            "needs the package txredisapi, which is not installed; run: pip install 'txmux[cluster]'"
        )
    return found


def _at_path(reading: Reading, text: str, rest: str) -> Store | None:
    path, _, database = rest.partition("?db=")
    if not path.removeprefix("//") or not _DATABASE.fullmatch(database):
        return None
    return Store(
        text, path=reading.home / Path(path.removeprefix("//")), database=int(database or 0)
    )


def _at_host(text: str, parts: SplitResult) -> Store | None:
    if parts.password is not None:
        raise InvalidValueError(
            "has a password in it, which everybody could read; write it into a file, and name that as "
            "'shared_limits_password'"
        )
    database = _DATABASE.fullmatch(parts.path)
    if not parts.hostname or not database or parts.query or parts.fragment or parts.port == 0:
        return None
    return Store(
        text,
        host=parts.hostname,
        port=parts.port or 6379,
        tls=_SCHEMES[parts.scheme],
        user=parts.username or "",
        database=int(database[1] or 0),
    )


STORE = Kind(_store, "`redis://HOST:PORT/DB`, `rediss:` with TLS, or `unix:/path`", in_context=True)
