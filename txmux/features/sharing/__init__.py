"""Bans and limits that several machines share, by Redis: ``shared_limits``."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

import attrs

from txmux.features.sharing.store import RULE, Store
from txmux.rules.feature import Feature
from txmux.rules.optional import named
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.values import KeyFiles, SectionKey, ValueKind, read_options, split_words

_SCHEMES: Mapping[str, bool] = {"redis": False, "rediss": True}
_DATABASE = re.compile(r"/?([0-9]{0,4})")
_EXAMPLE = "write for example 'redis://10.0.0.9:6379/0', 'rediss://redis.example.com' or 'unix:/run/redis/redis.sock'"


def _read(reading: RulesReading, text: str) -> Store:
    text, *words = split_words(text) or [""]
    options = read_options(words, {"password": reading.secret}, of=RULE)
    scheme, colon, rest = text.partition(":")
    store = None
    if colon and scheme == "unix":
        path, _, database = rest.removeprefix("//").partition("?db=")
        if path and _DATABASE.fullmatch(database):
            store = Store(text, path=reading.home / path, database=int(database or 0))
    elif scheme in _SCHEMES:
        with suppress(ValueError):
            store = _at_host(text, urlsplit(text))
    if store is None:
        raise InvalidValueError(f"{text!r} is not the address of a Redis; {_EXAMPLE}")
    return attrs.evolve(store, **options)


def _at_host(text: str, parts: SplitResult) -> Store | None:
    if parts.password is not None:
        message = "has a password in it, which every user could read; write it into a file, and add password=FILE after the address"
        raise InvalidValueError(message)
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


def _modules_of(store: Store) -> Iterable[str]:
    yield "twisted.internet.endpoints"
    if store.tls:
        yield "txmux.net.tls.verification"


_STORE = ValueKind(
    _read,
    "`redis://HOST:PORT/DB`, `rediss:` with TLS, or `unix:/path`; `[password=FILE]`",
    in_context=True,
    paths=lambda store: (store.password,),
)

# fmt: off
FEATURE = Feature(
    "sharing",
    keys={"txmux": {
        RULE: SectionKey(_STORE, example="redis://10.0.0.9:6379/0 password=/etc/txmux/secrets/redis.password", files=KeyFiles("supervisor", is_secret=True, reader="txmux.net.secrets:read_text"), loads=_modules_of, meaning=
            "machines share [bans and limits](#shared-limits) by this Redis"),
    }},
    needed=lambda rules: RULE in rules.settings.more,
    part=lambda its: named("txmux.features.sharing.bans:Sharing")(its.reactor, its.bans, its.per_source),
    rows=lambda: named("txmux.features.sharing.rows:ROWS"),
    sources=("bans", "limits"),
)
# fmt: on
