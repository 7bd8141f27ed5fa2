"""The section ``[txmux]``: settings of the whole service."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from txmux.errors import joined
from txmux.rules.advice.words import near, word_first
from txmux.rules.model import Section, Settings
from txmux.rules.model.settings import RIGHTS, AdminUser
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import values
from txmux.rules.reading.context import PATH, RESOLVERS, RulesReading
from txmux.rules.reading.endpoints import listening, parse_endpoint
from txmux.rules.reading.endpointstrings import split_ports
from txmux.rules.reading.files import SourceFile, is_pattern
from txmux.rules.reading.values import (
    BOOLEAN,
    CONNECTIONS,
    KeyFiles,
    SectionKey,
    ValueKind,
    socket_path,
    with_defaults,
    words,
)

_TCP = frozenset({"tcp", "tcp6"})
_WORDS = values.SWITCH_WORDS | {"auto", "none"}
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\:="})


def control_endpoint(text: str, home: Path, words: Sequence[str]) -> str | None:
    """Read an endpoint or ``off``, which is ``None``; a relative path starts at `home`. `words` is for messages."""
    if text == "off":
        return None
    token = " with 'admin_token = /var/lib/txmux/token'" if "auto" in words else ""
    if text.casefold() in _WORDS:
        message = f"{text!r} is not an endpoint; write {joined(words)}, unix:/path or ADDRESS:PORT"
        raise InvalidValueError(message + token)
    if text.isdecimal():
        message = f"{text!r} is not an address and port; did you mean '127.0.0.1:{text}'"
        raise InvalidValueError(f"{message}{token}?")
    text = listening(text, f"write {joined([*words, 'unix:/path'])}, or ADDRESS:PORT{token}")
    if split_ports(text) is not None:
        raise InvalidValueError(f"{text!r} has several ports; write one")
    parsed = parse_endpoint(text)
    if parsed.kind in _TCP:
        return text
    if parsed.kind != "unix":
        raise InvalidValueError(
            f"an endpoint of type {parsed.kind!r} is not possible here; write unix:/path or ADDRESS:PORT"
        )
    named = {**parsed.named}
    # Absolute, since the service may go to another folder.
    path = socket_path(os.path.abspath(home / named.pop("address")))  # noqa: PTH100 - links stay
    options = "".join(f":{name}={value}" for name, value in named.items())
    return f"unix:{str(path).translate(_SPECIAL)}{options}"


def is_by_tcp(endpoint: str) -> bool:
    return endpoint != "auto" and not endpoint.startswith("unix:")


def control_endpoints(settings: Settings) -> Iterator[tuple[str, int, str]]:
    """Yield the endpoints of ``admin`` and ``metrics`` that lines name: the key, the number of the line, and the endpoint."""
    for key, endpoints in (("admin", settings.admin), ("metrics", (settings.metrics or "auto",))):
        items = enumerate(settings.section.items(key))
        numbers = [number for number, item in items if item.text not in {"auto", "off"}]
        named = (one for one in endpoints if one != "auto")
        yield from ((key, *line) for line in zip(numbers, named, strict=False))


_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?|[0-9]{1,10}")
_MOST_WORKERS = 1000
_NO_PATHS = values.SWITCH_WORDS.union(("none", "stdout", "stderr", "syslog", "journal", "journald"))


def make_settings(section: Section, found: Mapping[str, Any]) -> Settings:
    fields = {name: value for name, value in found.items() if name != "include"}
    return Settings(section=section, **fields)


def contradictions(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    """Find values that are right by themselves, but not together."""
    by_tcp = [one for one in found.get("admin", ()) if is_by_tcp(one)]
    if by_tcp and not section.entries.keys() & {"admin_token", "admin_tokens"}:
        items = enumerate(section.items("admin"))
        lines = (number for number, item in items if item.text != "off" and is_by_tcp(item.text))
        number = next(lines, None)
        message = (
            "a TCP endpoint needs 'admin_token' beside it, since every user of this machine could connect; add for "
            "example 'admin_token = /var/lib/txmux/token', which is created if it does not exist, or write unix:/path"
        )
        yield section.problem(message, "admin", number)
    if "group" in section.entries and "user" not in section.entries:
        yield section.problem("needs 'user' beside it; add that, or remove this", "group")


def _include(reading: RulesReading, text: str) -> list[tuple[SourceFile, bool]]:
    """Return the files of a path or a pattern, each with whether it is a unit of its own."""
    if reading.alone:
        return []
    return [(source, is_pattern(text)) for source in reading.files.include(text)]


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        user, colon, group = text.partition(":")
        hint = (
            f"; write {user} here, and {group} as 'group'"
            if colon and user and group
            else "; write for example txmux"
        )
        raise InvalidValueError(f"{text!r} is not a name or number of one{hint}")
    return text


_RELAYS = words("auto", "portable", "kernel")


def _relay(text: str) -> str:
    if text == "kernel" and not (sys.platform == "linux" and hasattr(os, "splice")):
        raise InvalidValueError("kernel needs epoll and splice of Linux; write auto or portable")
    return str(_RELAYS.read(text))


def _workers(text: str) -> int:
    if text == "auto":
        # Not every system can tie a process to some of its processors.
        mine = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return min(len(mine), _MOST_WORKERS)
    try:
        return values.whole_number(1, _MOST_WORKERS)(text)
    except InvalidValueError:
        raise InvalidValueError(
            f"must be auto or a whole number from 1 to {_MOST_WORKERS}, not {text!r}"
        ).ask(near, text, ("auto",)) from None


def _access_log(reading: RulesReading, text: str) -> Path | Literal["-", "stdout"] | None:
    if text == "-":
        return "-"
    if text == "stdout":
        return "stdout"
    if text[0] in "'\"":
        raise InvalidValueError(f"{text!r} is not a path; write it without quotes")
    path, _, form = text.rpartition(" ")
    if path and form in {"text", "json", "combined", "main"}:
        message = f"{text!r} is not a path; write {path}, and 'access_log_format = json' as a key for JSON"
        raise InvalidValueError(message)
    if text != "off" and text.casefold().partition(":")[0] in _NO_PATHS:
        raise InvalidValueError(
            f"{text!r} is not a path; write 'off' for no log, '-' for the service's own log, "
            f"or './{text}' for a file of that name"
        )
    return None if text == "off" else reading.home / values.file_path(text)


def _admin(reading: RulesReading, text: str) -> str | None:
    return text if text == "auto" else control_endpoint(text, reading.home, ("auto", "off"))


def _with_automatic(found: Iterable[str | None]) -> tuple[str, ...]:
    """Collect the endpoints of ``admin``: the socket of ``auto`` is there, and asked first, unless ``off`` is among them."""
    endpoints = dict.fromkeys(["auto", *found])
    if None in endpoints:
        del endpoints["auto"], endpoints[None]
    return tuple(endpoint for endpoint in endpoints if endpoint is not None)


def _admin_user(text: str) -> AdminUser:
    named, colon, right = text.partition(":")
    name = named.removeprefix("@")
    for known in RIGHTS:
        if right == known and _ACCOUNT.fullmatch(name):
            return AdminUser(name, known, named.startswith("@"))
    if right in RIGHTS:
        message = f"{name!r} is not a name or number of a user or group"
    else:
        message = f"{right!r} is no right" if colon else f"{text!r} has no right"
    error = InvalidValueError(f"{message}; write for example alice:steer, @ops:read, 1000:all")
    raise error.ask(word_first, right, RIGHTS)


def _watch(text: str) -> float:
    seconds = 0.0 if text == "off" else values.duration(text, values.SECONDS_FORMS)
    if text != "off" and seconds < 1:
        raise InvalidValueError(f"must be off, or at least 1s, not {text!r}")
    return seconds


_INCLUDE = ValueKind(_include, "list of paths or patterns", "list", in_context=True)
_WATCH = ValueKind(_watch, "`off` or duration")
_RELAY = ValueKind(_relay, _RELAYS.shape)
_WORKERS = ValueKind(_workers, f"a number from `1` to `{_MOST_WORKERS}`, or `auto`")
_ANY_DURATION = ValueKind(values.duration, "duration, also `0s`")
_ACCESS_LOG = ValueKind(
    _access_log,
    "`-`, `stdout`, `off` or a path",
    in_context=True,
    paths=lambda log: [log] if isinstance(log, Path) else [],
)
_USER = ValueKind(_account, "a user's name or number")
_GROUP = ValueKind(_account, "a group's name or number")
_ADMIN = ValueKind(
    _admin, "`auto`, `off` or endpoints, one a line", "lines", _with_automatic, in_context=True
)
_USERS = ValueKind(_admin_user, "list of `USER:RIGHT` or `@GROUP:RIGHT`", "list")
_SANDBOX = words("auto", "yes", "off")
_METRICS = ValueKind(
    lambda reading, text: control_endpoint(text, reading.home, ("off",)),
    "`off` or an endpoint",
    in_context=True,
)

# fmt: off
KEYS: Mapping[str, SectionKey] = with_defaults(Settings(), {
    "include": SectionKey(_INCLUDE, example="rules.d/*.ini", files=KeyFiles("supervisor"), meaning=
        "these [further files](#included-files) are part of the rules"),
    "watch_rules": SectionKey(_WATCH, default="off", example="10s", meaning=
        "txmux looks this often whether the rules file or an included one has changed, to [reload them](#watching-the-rules)"),
    "relay": SectionKey(_RELAY, meaning=
        "this [relay](#relays) carries the bytes of connections"),
    "workers": SectionKey(_WORKERS, example="auto", meaning=
        "this many [processes](#workers) serve clients; `auto`: one for each CPU core that txmux may use"),
    "sandbox": SectionKey(_SANDBOX, example="yes", meaning=
        "workers are [confined](#sandbox) to what the rules name"),
    "max_connections": SectionKey(CONNECTIONS, example="10000", meaning=
        "all listeners together have at most this many connections, `0` for no limit. Further clients are closed"),
    "drain_timeout": SectionKey(_ANY_DURATION, meaning=
        "connections may continue for this long when the service stops; those left end one by one in its second half"),
    "drain_removed": SectionKey(BOOLEAN, meaning=
        "with `yes`, connections of routes and backends that a reload removes get `drain_timeout` to end; otherwise they continue"),
    "access_log": SectionKey(_ACCESS_LOG, example="/var/log/txmux.log", files=KeyFiles("worker-log"), meaning=
        "the [access log](access-log.md) goes into the service's log (`-`), to standard output as bare lines, nowhere, or to a file, which SIGHUP reopens"),
    "access_log_format": SectionKey(words("text", "json"), example="json", meaning=
        "the access log's format"),
    "resolvers": SectionKey(RESOLVERS, example="127.0.0.1:8600", shapes_others=True, meaning=
        "these [name servers](#how-names-are-looked-up) look up servers' names; by default the system's"),
    "user": SectionKey(_USER, example="txmux", meaning=
        "the service, started as root, becomes this [user](#user-and-group) once it listens"),
    "group": SectionKey(_GROUP, example="txmux", meaning=
        "the service gets this group; by default that of `user`"),
    "admin": SectionKey(_ADMIN, default="auto", example="127.0.0.1:8440", meaning=
        "these [endpoints](#admin-and-metrics) serve the page, the [API](admin-api.md) and the commands: `unix:/path`, or `ADDRESS:PORT` with `admin_token` or `admin_tokens`"),
    "admin_token": SectionKey(PATH, example="/var/lib/txmux/token", files=KeyFiles("supervisor", is_secret=True), meaning=
        "this file has the secret of TCP clients; a missing one is created with mode 0600"),
    "admin_tokens": SectionKey(PATH, example="/etc/txmux/secrets/tokens", files=KeyFiles("supervisor", is_secret=True), meaning=
        "this file has [more secrets](#rights), a line `NAME RIGHT SECRET` for each client"),
    "admin_users": SectionKey(_USERS, example="alice:steer, @ops:read", meaning=
        "these users have [these rights](#rights) by a UNIX socket of `admin`; by default, everyone who can open it has all"),
    "metrics": SectionKey(_METRICS, default="off", example="127.0.0.1:9443", meaning=
        "this endpoint has only `/metrics`, `/healthz` and `/readyz`, without a secret"),
    "grace": SectionKey(_ANY_DURATION, example="10s", meaning=
        "when the service stops, `/readyz` answers 503 for this long while clients are accepted, for balancers in front"),
})
# fmt: on
"""The keys of ``[txmux]``."""

CONTEXT = attrgetter("more", *(name for name, key in KEYS.items() if key.shapes_others))
"""The settings on which values of other sections depend."""
