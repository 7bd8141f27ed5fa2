"""Makes routes in Python, for programs that embed `MuxFactory`; rules files need none of this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.interfaces import IProtocolFactory

from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError
from txmux.rules.installed import KEYS, read_server
from txmux.rules.model import (
    NOWHERE,
    AllowedNames,
    Backend,
    Check,
    Clients,
    Ejection,
    InProcess,
    Keepalive,
    Listener,
    Logged,
    NetworkSet,
    Outcome,
    Public,
    Rate,
    Reachable,
    Refusal,
    Resolve,
    Route,
    Rules,
    Server,
    ServerTLS,
    Settings,
)
from txmux.rules.model.networks import DynamicNetworks, Senders, UnixClients
from txmux.rules.model.rules import checked_rules
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.backend import KEYS as BACKEND_KEYS
from txmux.rules.reading.endpointstrings import handover, is_handover
from txmux.rules.reading.listener import KEYS as LISTENER_KEYS
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.service import KEYS as SERVICE_KEYS
from txmux.rules.reading.values import SectionKey, ValueKind, network
from txmux.transport import Transport


def route(
    match: str | Iterable[str],
    backend: IProtocolFactory | Outcome | str,
    *,
    name: str | None = None,
    from_: Iterable[str] | None = None,
    not_from: Iterable[str] | None = None,
    log: Logged = True,
) -> Route:
    """Make a route, as a ``[route]`` section does.

    Args:
        match: One ``match =`` line, or several of which any is enough: ``"tls sni=*.example.com"``.
        backend: The outcome for its clients; see `outcome`.
        name: For the access log; the first ``match`` line if not given.
        from_: The only networks it serves, ``"10.0.0.0/8"``; an empty list is no client, ``None`` every one.
        not_from: Networks that it does not serve.
        log: Whether its connections get a line in the access log; ``"errors"`` is only those that ended with an error.

    Raises:
        MuxError: Something cannot be used; the message says what would be right.
    """
    lines = [match] if isinstance(match, str) else list(match)
    if not lines:
        raise MuxError("a route needs a match line, such as 'any'")
    matchers = _matchers()
    alternatives = tuple(read_alternative(line, matchers) for line in lines)
    to, clients = outcome(backend), Clients(_network_set(from_), _network_set(not_from))
    return Route(name or lines[0], alternatives, to, clients=clients, log=log)


def outcome(backend: IProtocolFactory | Outcome | str) -> Outcome:
    """Make the outcome of a decision, for `route` and for the ``silent`` and ``default`` of a `Listener`.

    Args:
        backend: A Twisted protocol factory of this process, which gets the client's connection itself; a server in
            the short form of rules files, such as ``"127.0.0.1:22"``, or ``"handover:/path"``; ``"close"``, ``"reset"`` or ``"reject"``; or a ready outcome.

    Raises:
        MuxError: It is none of these.
    """
    if isinstance(backend, Outcome):
        return backend
    if isinstance(backend, str):
        if backend in {refusal.value for refusal in Refusal}:
            return Refusal(backend)
        if is_handover(backend):
            return handover(backend)
        return Backend(backend, (read_server(backend),))
    if IProtocolFactory.providedBy(backend):
        return InProcess(type(backend).__name__, backend)
    message = f"{backend!r} is not a protocol factory, a server such as '127.0.0.1:22', 'close', 'reset' or 'reject'"
    raise MuxError(message)


def for_streams(
    routes: Iterable[Any], listener: Listener | str
) -> tuple[tuple[Route, ...], Listener]:
    """Convert as `from_python` does; what works only over UDP is a TypeError, too, where clients come by TCP."""
    made, listener = from_python(routes, listener)
    wrong = [route.name for route in made if not route.is_for(Transport.TCP)]
    if wrong and listener.transport is Transport.TCP:
        raise TypeError(f"{wrong[0]!r} works only over UDP, but these clients come by TCP")
    return made, listener


def from_python(
    routes: Iterable[Any], listener: Listener | str
) -> tuple[tuple[Route, ...], Listener]:
    """Convert what a program has written as a rules file would: durations and servers as texts, routes as pairs.

    Raises:
        TypeError: Something is neither that nor what it should be.
    """
    try:
        if isinstance(listener, str):
            listener = Listener(listener)
        if not isinstance(listener, Listener):
            raise TypeError(f"{listener!r} is not a listener; write Listener('NAME')")
        listener = _with_values(listener, LISTENER_KEYS, _USUAL_LISTENER)
        lines = [
            attrs.evolve(line, outcome=_ready(line.outcome), clients=_clients(line.clients))
            for line in map(_check_fields, listener.silent)
        ]
        listener = attrs.evolve(
            listener,
            default=_ready(listener.default),
            silent=tuple(lines),
            clients=_clients(listener.clients),
            accept_proxy_from=_network_set(listener.accept_proxy_from, Senders, UnixClients.UNIX),
        )
        _check_transport(listener.transport, listener.default, *(its.outcome for its in lines))
        return tuple(map(_route, routes)), listener
    except (MuxError, InvalidValueError) as error:
        raise TypeError(str(error)) from None


def rules_from_python(rules: Rules) -> Rules:
    """Convert the listeners and the routes of rules that a program has made, as `from_python` does; those of a file stay."""
    settings = checked_rules(rules).settings
    routes, _ = from_python(rules.routes, _USUAL_LISTENER)
    listeners = [
        from_python((), listener)[1] if listener.section is NOWHERE else listener
        for listener in rules.listeners
    ]
    if settings.section is NOWHERE:
        settings = _with_values(settings, SERVICE_KEYS, _USUAL_SETTINGS)
    made = attrs.evolve(rules, settings=settings, listeners=tuple(listeners), routes=routes)
    owners: list[Listener | Route] = [*made.listeners, *made.routes]
    used = {id(route) for owner in owners for route in made.routes_of(owner)}
    for route in made.routes:
        if route.section is NOWHERE and id(route) not in used:
            message = f"no listener is for {route.name!r}, by its transport and its 'under'"
            raise TypeError(message)
    return made


def _route(made: Any) -> Route:
    if isinstance(made, tuple) and len(made) == 2:
        made = route(*made)
    if not isinstance(made, Route):
        raise TypeError(f"{made!r} is not a route; make one by txmux.route('ssh', '127.0.0.1:22')")
    found = made.outcome if made.outcome is None else _ready(made.outcome)
    clients = _clients(made.clients)
    if found is made.outcome and clients is made.clients:
        return made
    return attrs.evolve(made, outcome=found, clients=clients)


def _clients(made: Any) -> Clients:
    if not isinstance(made, Clients):
        message = f"{made!r} does not say which clients; write Clients(allowed=['10.0.0.0/8'])"
        raise TypeError(message)
    allowed, excluded = _network_set(made.allowed), _network_set(made.excluded)
    if allowed is made.allowed and excluded is made.excluded:
        return made
    return Clients(allowed, excluded)


def _network_set(made: Any, known: type[NetworkSet] = NetworkSet, word: Enum | None = None) -> Any:
    """Convert texts, which no address would ever be found in; `Senders` and `Reachable` have a word, too."""
    if made is None or isinstance(made, known):
        return made
    networks = map(str.strip, made.split(",")) if isinstance(made, str) else made
    if not isinstance(networks, Iterable):
        raise TypeError(f"{made!r} is not networks; write them as ['10.0.0.0/8', '192.0.2.1']")
    some = [networks] if isinstance(networks, NetworkSet) else networks
    return known(_sender(its, word) for its in some)


def _sender(its: Any, word: Enum | None) -> Any:
    if word is not None and its in (word, word.value):
        return word
    if isinstance(its, str):
        return network(its)
    if not isinstance(its, (IPv4Network, IPv6Network, NetworkSet, DynamicNetworks)):
        raise TypeError(f"{its!r} is not a network; write it as '10.0.0.0/8'")
    return its


def _ready(found: Any) -> Outcome:
    made = outcome(found)
    if not isinstance(made, Backend) or made.section is not NOWHERE:
        return made
    return _ready_backend(made)


def _ready_backend(found: Backend) -> Backend:
    allowed, denied = (
        _network_set(networks, Reachable, Public.PUBLIC)
        for networks in (found.allow_networks, found.deny_networks)
    )
    if allowed is not found.allow_networks or denied is not found.deny_networks:
        found = attrs.evolve(found, allow_networks=allowed, deny_networks=denied)
    ready = _with_values(found, BACKEND_KEYS, _USUAL_BACKEND)
    made = (found.servers,) if isinstance(found.servers, (str, Server)) else found.servers
    servers, fallback = tuple(map(_server, made)), _ready(ready.fallback)
    if servers != found.servers or fallback is not ready.fallback:
        ready = attrs.evolve(ready, servers=servers, fallback=fallback)
    _check_transport(ready.transport, fallback)
    return ready


def _check_transport(transport: Transport, *outcomes: Outcome) -> None:
    for its in outcomes:
        if isinstance(its, Backend) and its.transport is not transport:
            only, other = its.transport.name, transport.name
            raise TypeError(f"{its.name!r} works only over {only}, but its clients come by {other}")


def _server(made: Any) -> Server:
    if isinstance(made, str):
        return read_server(made)
    if not isinstance(made, Server) or not isinstance(made.text, str):
        raise TypeError(f"{made!r} is not a server; write Server('127.0.0.1:22')")
    if made.weight == 0:
        raise TypeError(f"Server({made.text!r}, weight=0): write down=True")
    _check_fields(made)
    if made.kind and (made.host or made.kind not in {"tcp", "udp"}):
        return made
    read = read_server(made.text)
    given = attrs.asdict(made, recurse=False, filter=lambda field, value: value != field.default)
    return attrs.evolve(read, **{name: value for name, value in given.items() if name != "text"})


_USUAL_LISTENER, _USUAL_BACKEND, _USUAL_SETTINGS = Listener(""), Backend("", ()), Settings()
_Model = TypeVar("_Model", Listener, Backend, Settings)
_WHOLE, _SECONDS = "write a whole number", "write seconds, or a text such as '5s'"
# By the type of a field, which may have no default.
_PLAIN: Mapping[str, object] = {"float": 0.0, "int": 0, "str": ""}
_CLASSES: Mapping[str, type] = {
    "allow_names": AllowedNames,
    "deny_names": AllowedNames,
    "check": Check,
    "connection_rate_per_source": Rate,
    "eject": Ejection,
    "keepalive": Keepalive,
    "resolve": Resolve,
    "tls": ServerTLS,
}
"""The values that are neither texts nor numbers, where they are not ``None``."""


def _with_values(made: _Model, keys: Mapping[str, SectionKey], usual: _Model) -> _Model:
    """Read the texts among a model's values as a rules file has them, and refuse what is not even that."""
    read: dict[str, Any] = {}
    kinds = {key.field or name: key.kind for name, key in keys.items()}
    for attribute in attrs.fields(type(made)):
        field = attribute.name
        value, default, kind = getattr(made, field), getattr(usual, field), kinds.get(field)
        if value is default or field in {"servers", "silent"}:
            continue
        try:
            found = _of_features(value) if field == "more" else _converted(attribute, value, kind)
        except InvalidValueError as error:
            raise TypeError(f"{type(made).__name__}({field}={value!r}): {error}") from None
        if found is not value:
            read[field] = found
    return attrs.evolve(made, **read) if read else made


def _converted(field: attrs.Attribute[Any], value: Any, kind: ValueKind | None) -> Any:
    if isinstance(value, str) and kind is not None and not kind.in_context:
        value = kind.read(value) if kind.takes == "one" else kind.collect([kind.read(value)])
    else:
        _check(value, field)
        _check_range(value, _usual(field), kind)
    if field.name == "tls" and isinstance(value, bool):
        return ServerTLS() if value else None
    needed = _CLASSES.get(field.name)
    if needed is not None and value is not None:
        if not isinstance(value, needed):
            raise InvalidValueError(f"write a txmux.rules.model.{needed.__name__}, or a text")
        _check_fields(value)
    return value


def _of_features(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the texts among values of features' keys; what a text stands for only beside others is not ignored."""
    read = dict(values)
    for name, value in values.items():
        key = next((keys[name] for keys in KEYS.values() if name in keys), None)
        if key is None:
            raise InvalidValueError(f"unknown key {name!r}")
        if not isinstance(value, str):
            _check_range(value, key.usual, key.kind)
        elif key.kind.in_context:
            raise InvalidValueError(f"{name} is what a text stands for, and no text")
        else:
            read[name] = key.kind.read(value)
    return values if read == values else read


def _check_range(value: Any, usual: object, kind: ValueKind | None) -> None:
    """Refuse a number that a rules file cannot have either, in the same words."""
    if kind is not None and not kind.in_context and isinstance(usual, (int, float)):
        kind.read(kind.write(round(float(value), 12) if isinstance(usual, float) else value))


def _check_fields(made: Any) -> Any:
    for field in attrs.fields(type(made)):
        value = getattr(made, field.name)
        try:
            _check(value, field)
            _check_zero(value, field)
        except InvalidValueError as error:
            raise TypeError(f"{type(made).__name__}({field.name}={value!r}): {error}") from None
    return made


def _check_zero(value: object, field: attrs.Attribute[Any]) -> None:
    may_be_zero = field.default in (0, None) and not isinstance(_usual(field), float)
    if type(value) in (int, float) and not (value or may_be_zero):
        raise InvalidValueError("must be more than 0")


def _usual(field: attrs.Attribute[Any]) -> object:
    return _PLAIN.get(str(field.type).removesuffix(" | None"), field.default)


def _check(value: object, field: attrs.Attribute[Any]) -> None:
    """Refuse what has not the type of a field, if that is a plain one."""
    default: object = field.default
    usual = _usual(field)
    is_right, right = True, ""
    if value is default or (value is None and str(field.type).endswith("| None")):
        return
    if str(field.type).startswith("Path"):
        is_right = isinstance(value, Path) or repr(value) in str(field.type)
        right = "write a pathlib.Path"
    elif isinstance(usual, str):
        example = f", such as {default!r}" if isinstance(default, str) and default else ""
        is_right, right = isinstance(value, str), f"write a text{example}"
    elif isinstance(usual, tuple):
        is_right, right = isinstance(value, tuple), "write a tuple"
    elif isinstance(usual, bool):
        is_right, right = isinstance(value, bool), "write True or False"
    elif isinstance(usual, (int, float)):
        types, right = (int, _WHOLE) if isinstance(usual, int) else ((int, float), _SECONDS)
        is_right = isinstance(value, types) and not isinstance(value, bool) and 0 <= value < inf
    if not is_right:
        raise InvalidValueError(right)


# A program may make thousands of routes, and to look for plugins reads the disk.
_matchers = cache(installed_matchers)
