"""Tunnels: a route answers CONNECT, SOCKS 5 and 4 as a proxy does; and servers are reached through such a proxy, by ``via``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.features.tunnels.reading import contradictions, open_tunnels, read_users
from txmux.features.tunnels.via import VIA, beside_a_proxy
from txmux.files import read_bytes
from txmux.rules.feature import Feature, FeatureStage
from txmux.rules.model import Opening, Route, Rules
from txmux.rules.model.backend import backends_of
from txmux.rules.optional import named
from txmux.rules.problems import Problem
from txmux.rules.reading.values import KeyFiles, SectionKey, ValueKind, boolean, one_path

if TYPE_CHECKING:
    from txmux.rules.reading.context import RulesReading

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
