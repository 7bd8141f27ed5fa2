"""Tunnels: a route answers CONNECT, SOCKS 5 and 4 as a proxy does; and servers are reached through such a proxy, by ``via``."""

from __future__ import annotations

import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txmux.errors import how_to_install
from txmux.features.tunnels.via import VIA, beside_a_proxy
from txmux.files import read_bytes
from txmux.rules.feature import Feature, FeatureStage
from txmux.rules.model import Listener, Opening, Route, Rules, Section, Settings
from txmux.rules.model.backend import backends_of, blamed
from txmux.rules.model.rules import each_once
from txmux.rules.optional import named
from txmux.rules.problems import Problem
from txmux.rules.reading.values import (
    KeyFiles,
    SectionKey,
    ValueKind,
    boolean,
    one_path,
    words_if_right,
)

if TYPE_CHECKING:
    from txmux.rules.reading.context import RulesReading


# More than 2**14 rounds take seconds.
_HASH = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")


_MOST_LINES = 10
"""Problems of one file of users that are listed."""
TUNNEL = Opening(
    "tunnel",
    inside="the tunnel",
    does="opens tunnels",
    is_over="tunnels are",
    comes_over="clients ask for tunnels",
    otherwise="put it under another",
    answered="clients of a tunnel",
    names=("host",),
    error="tunnel_error",
    fails="opens no tunnel",
)


def read_users(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    """Read a file of ``htpasswd -B``: the hashes of users, and what is wrong, each with the number of its line."""
    users: dict[str, bytes] = {}
    problems = []
    for number, line in enumerate(data.splitlines(), 1):
        user, _, hashed = line.strip().partition(b":")
        if _HASH.fullmatch(hashed):
            users[user.decode("utf-8", "replace")] = hashed
        elif user and not user.startswith(b"#"):
            problems.append(
                f":{number}: no USER:HASH of bcrypt with a cost up to 14; run 'htpasswd -nB USER'"
            )
    return users, problems if users else [*problems, ": no user is in it, so nobody can log in"]


def asks_for_tunnel(section: Section) -> bool:
    return [item.text for item in section.items("tunnel")] == ["yes"]


def contradictions(section: Section, _: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what does not go together with ``tunnel`` in one section."""
    has_users = "tunnel_users" in section.entries
    if not asks_for_tunnel(section):
        if has_users:
            message = "does nothing without 'tunnel = yes'; add that, or remove this"
            yield section.problem(message, "tunnel_users")
        return
    if has_users and importlib.util.find_spec("bcrypt") is None:
        message = (
            f"needs the package bcrypt, which is not installed; run: {how_to_install('tunnel')}"
        )
        yield section.problem(message, "tunnel_users")
    if "terminate_tls" in section.entries:
        yield section.problem("this route ends TLS; put another with 'tunnel' under it", "tunnel")
    for number, item in enumerate(section.items("match")):
        name, *options = words_if_right(item.text) or ["socks5"]
        is_right = name in {"socks5", "socks4"} or (name == "http" and "method=CONNECT" in options)
        if not is_right:
            message = (
                f"{item.text!r} asks for no tunnel; only http method=CONNECT, socks5 and socks4 do"
            )
            yield section.problem(message, "match", number)
        elif name == "socks4" and has_users:
            message = "SOCKS 4 has no passwords; put this into a route without 'tunnel_users'"
            yield section.problem(message, "match", number)


def open_tunnels(
    listeners: Sequence[Listener], routes: Sequence[Route], _: Settings, owners: Mapping[int, str]
) -> Iterator[Problem]:
    """Find tunnels without a destination, or to servers whose port clients choose without a limit."""
    inside = defaultdict[tuple[str, str | None], list[Route]](list)  # of each owner
    for route in routes:
        for name in route.under:
            inside[name, owners.get(id(route.section))].append(route)
    tunnels = [route for route in routes if route.more.get("tunnel")]
    ends = {end.name: end for end in routes if end.is_outer} if tunnels else {}
    for route in tunnels:
        within = each_once([route], lambda one: inside[one.name, owners.get(id(one.section))])
        outcomes = [one.outcome for one in within]
        if outcomes == [None]:
            message = f"has no destination; add routes with 'under = {route.name}', or a 'backend' with fixed servers or 'allow_names'"
            yield route.section.problem(message, "tunnel")
        if route.outcome is None:
            over = [*each_once([route], lambda one: filter(None, map(ends.get, one.under)))]
            own = [its for its in listeners if any(end.stands_under(its) for end in over)]
            outcomes += [outcome for listener in own for outcome in listener.outcomes]
        for backend in backends_of(outcomes):
            # What clients name needs 'allow_names', as a problem of its own section says.
            free = [
                server for server in backend.servers if server.kind == "tcp" and not server.port
            ]
            ports = [server.text for server in free if not server.placeholder]
            if ports and backend.allow_names is None and backend.allow_networks is None:
                message = f"clients choose the port of {ports[0]!r}; add 'allow_networks' to [backend {backend.name}]"
                yield from blamed(route.section, "tunnel", message, outcomes, backend, owners)


def _users(reading: RulesReading, text: str) -> Path:
    return reading.beside(text, "a file of users and their passwords")


def _any_port(rules: Rules) -> Iterator[Problem]:
    """Find tunnels by which everyone can come to every port of what clients may name."""
    if not any(route.more.get("tunnel") for route in rules.routes):
        return
    from txmux.rules.lint.access import open_to_anyone  # noqa: PLC0415 - for rules that are read
    from txmux.rules.lint.scopes import scopes  # noqa: PLC0415 - the same

    open_ends = open_to_anyone(rules)
    for scope in scopes(rules):
        owner = scope.owner
        if not owner.more.get("tunnel") or not isinstance(owner, Route):
            continue
        is_limited = any(listener.clients.allowed is not None for listener in scope.listeners)
        if is_limited or owner.name not in open_ends:
            continue
        ways = [route.outcome for route in rules.routes_of(owner) if route.clients.allowed is None]
        for backend in backends_of([owner.outcome, *ways]):
            if any(not server.port and server.kind == "tcp" for server in backend.servers):
                message = f"everyone may come to any port behind [backend {backend.name}]; add 'from' or 'tunnel_users'"
                yield owner.section.problem(message, "tunnel")


def _wrong_users(rules: Rules) -> Iterator[Problem]:
    """Find what is wrong in files of ``tunnel_users``, if this process may read them."""
    for route in rules.routes:
        path = route.more.get("tunnel_users")
        if path is None:
            continue
        try:
            problems = read_users(read_bytes(path))[1][:_MOST_LINES]
        except OSError as error:
            is_hidden = isinstance(error, PermissionError)
            problems = [] if is_hidden else [f" cannot be read: {error.strerror}"]
        for problem in problems:
            yield route.section.problem(f"{path}{problem}", "tunnel_users")


def _seen(
    route: Route, data: bytes, is_for_route: Callable[[bytes], bool]
) -> tuple[Mapping[str, str], bytes | None]:
    from txmux.features.tunnels.dialogue import asked_for  # noqa: PLC0415 - few routes have it
    from txmux.wire.facts import printable  # noqa: PLC0415 - the same

    asked, refused = asked_for(data, is_for_route, wants_login="tunnel_users" in route.more)
    if refused is None:
        return {}, None
    if refused:
        return {"tunnel": asked.kind, "tunnel_error": printable(refused)}, None
    return asked.granted, asked.received


# fmt: off
FEATURE = Feature(
    "tunnels",
    keys={"route": {
        "tunnel": SectionKey(ValueKind(lambda text: TUNNEL if boolean(text) else None, "boolean"), default="no", is_outer=True, meaning=
            "txmux answers CONNECT, SOCKS 5 and 4 [as a proxy does](#tunnels), and the routes `under` this one decide on what comes then"),
        "tunnel_users": SectionKey(ValueKind(_users, "path", in_context=True, paths=one_path), example="tunnel.htpasswd", files=KeyFiles("sent", is_secret=True, watcher="txmux.features.tunnels.users:TunnelUsers"), lets_some=True, loads=lambda _: ("txmux.features.tunnels.users",), meaning=
            "this file of `htpasswd -B` has the users who may log in; by default no login is asked for. It needs the extra `txmux[tunnel]`"),
    }, "backend": {
        "via": SectionKey(VIA, example="socks5://127.0.0.1:1080", streams_only="works only over TCP; remove it", files=KeyFiles("sent", is_secret=True, is_needed=True, reader="txmux.features.tunnels.dialler:read_password"), meaning=
            "[this proxy](#via) connects to the servers"),
    }},
    contradictions={"route": contradictions, "backend": beside_a_proxy},
    connecting={"via": "txmux.features.tunnels.dialler:ProxyDialler"},
    conflicts=(open_tunnels,),
    stages=(FeatureStage("tunnelling", "tunnel", "txmux.features.tunnels.stage:TunnelMaker", then=("decision", "peeking"), waits_for="the client's request for a tunnel", seen=_seen),),
    finds={"lint": (_any_port, _wrong_users)},
    rows=lambda: named("txmux.features.tunnels.rows:ROWS"),
)
# fmt: on
