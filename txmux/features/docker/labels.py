"""From the labels of containers to sections of rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from txmux.classes import frozen
from txmux.cli.labels import (
    KEYS,
    PREFIX,
    Keys,
    LabelError,
    all_that_labels_may_set,
    is_of_route,
    read_by_route,
    section,
)
from txmux.errors import printable
from txmux.interfaces import ProvidedObject
from txmux.rules.advice.words import did_you_mean
from txmux.rules.lint.silence import SPEAK_FIRST, waits_for_both
from txmux.rules.model import Listener, Rules
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.scope import open_to
from txmux.rules.reading.values import NAME, positive_duration
from txmux.transport import Transport, bracketed

_OF_CONTAINER = frozenset({"backend", "sleep", "wake"})
_OWN = frozenset({*_OF_CONTAINER, "listen", "match", "port"})
SETTABLE = KEYS - _OWN - {"server"}
"""What ``--allow-label`` may name."""
_KNOWN = SETTABLE | _OWN
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp))?")
_HOLD = "60s"
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


@frozen
class Container:
    """What the daemon reports of a container; `published` has its addresses on the host now, by ports such as ``80/tcp``."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    health: str
    exposed: tuple[str, ...]
    published: Mapping[str, tuple[str, int]]
    addresses: Mapping[str, str]  # by network

    @classmethod
    def read(cls, answer: Any) -> Container:
        """Read an answer to ``/containers/{id}/json``; raises one of `MISSHAPEN` if it is none."""
        config, state, network = answer["Config"], answer["State"], answer["NetworkSettings"]
        # What was asked for need not be so: without a bridge, the port may be one of the host itself.
        asked = (answer.get("HostConfig") or {}).get("PortBindings") or {}
        ports = network.get("Ports") or {}
        exposed = {*map(str, config.get("ExposedPorts") or {}), *map(str, asked), *map(str, ports)}
        labels = (config.get("Labels") or {}).items()
        networks = (network.get("Networks") or {}).items()
        return cls(
            str(answer["Id"]),
            str(answer["Name"]).removeprefix("/"),
            {n.removeprefix(PREFIX): str(text) for n, text in labels if n.startswith(PREFIX)},
            str(state["Status"]),
            str((state.get("Health") or {}).get("Status", "")),
            tuple(sorted(exposed)),
            {port: _published(on[0]) for port, on in ports.items() if on and on[0]["HostPort"]},
            {
                name: str(its.get("IPAddress") or its.get("GlobalIPv6Address") or "")
                for name, its in networks
                if its
            },
        )

    @property
    def is_running(self) -> bool:
        return self.state in {"running", "paused", "stopping"}

    @property
    def wakes(self) -> bool:
        return self.labels.get("wake") == "yes"

    @property
    def sleep(self) -> float:
        """The seconds without a connection after which it is stopped; 0 if it never is, or if the label is wrong."""
        with suppress(LookupError, InvalidValueError):
            return positive_duration(self.labels["sleep"])
        return 0.0

    @property
    def word(self) -> str:
        return self.labels.get("backend", self.name)


def _published(on: Any) -> tuple[str, int]:
    return str(on.get("HostIp", "")), int(on["HostPort"])


@frozen
class LabelRules:
    """How labels are read.

    Attributes:
        network: Where containers are reached; without it, at their published ports.
        allowed: Keys that labels may set in addition.
        wake: The URL to which the names of backends are added.
        file: What has the sections, as the service names it.
    """

    network: str | None = None
    allowed: frozenset[str] = frozenset()
    wake: str = "unix:/run/txmux/wake.sock:"
    file: str = "docker.ini"


@frozen
class LabelledRoute:
    """A route that the labels of a container describe, and its backend."""

    container: Container
    name: str
    keys: tuple[Keys, Keys]  # of the route, and of the backend
    server: str  # nothing listens there while the container does not run
    is_drained: bool
    warning: str = ""


def read_labels(
    containers: Iterable[Container],
    settings: LabelRules,
    rules: Rules,
    drained: Collection[str] = (),
) -> tuple[list[ProvidedObject], list[LabelledRoute]]:
    """Return the sections of containers, in the order of their names, with the routes in them.

    Args:
        containers: Those with labels.
        settings: How they are read.
        rules: Those of the service, with the listeners that routes may be under.
        drained: The IDs of those that get no further clients.
    """
    groups: dict[str, list[LabelledRoute]] = {}
    objects: list[ProvidedObject] = []
    names: set[str] = set()
    for its in sorted(containers, key=lambda its: (its.name, its.id)):
        try:
            if its.name in names:
                raise LabelError("another container has its name")  # noqa: TRY301
            names.add(its.name)
            _join(groups, [*_routes(its, settings, rules, drained)])
        except LabelError as error:
            objects.append(ProvidedObject(f"container {its.name}", problem=str(error)))
    for name, group in groups.items():
        of = ", ".join(its.container.name for its in group)
        title, warning = f"container {of}, route {name}", group[0].warning
        objects.append(ProvidedObject(title, _text(group), unit=unit_of(name), warning=warning))
    return objects, [its for group in groups.values() for its in group]


def unit_of(name: str) -> str:
    # Labels choose the name, and what 'routes_from' allows may be files of that name.
    return f"container.{name}"


def _text(group: Sequence[LabelledRoute]) -> str:
    """Return the sections of routes with one name, whose servers are those of one backend."""
    name, (route_keys, backend_keys) = group[0].name, group[0].keys
    # Clients wait for one that is down; nothing connects to it.
    using = [its for its in group if its.container.is_running] or group[:1]
    servers = dict.fromkeys(f"{its.server}{' down' * its.is_drained}" for its in using)
    of_route = section("route", name, {**route_keys, "backend": [name]})
    return f"\n{of_route}\n\n{section('backend', name, {**backend_keys, 'server': [*servers]})}"


def _join(groups: dict[str, list[LabelledRoute]], routes: Sequence[LabelledRoute]) -> None:
    """Add the routes of a container to those of others, all or none."""
    for its in routes:
        first = groups.get(its.name, [its])[0]
        of = f"container {first.container.name}"
        is_shared = "backend" in its.container.labels.keys() & first.container.labels.keys()
        if first is not its and not is_shared:
            raise LabelError(f"{of} has a [route {its.name}] already; give one another name")
        if first.keys != its.keys:
            why = f"its labels differ from those of {of}, which has the same txmux.backend"
            raise LabelError(why)
    for its in routes:
        groups.setdefault(its.name, []).append(its)


def _routes(
    its: Container, settings: LabelRules, rules: Rules, drained: Collection[str]
) -> Iterator[LabelledRoute]:
    _check_container(its)
    listeners = {one.name for one in rules.listeners}
    is_drained = its.id in drained or its.state != "running" or its.health == "unhealthy"
    for name, keys in read_by_route(its.labels, _KNOWN, _OF_CONTAINER).items():
        if "match" not in keys:
            raise LabelError(f"{'.'.join(filter(None, ('txmux', name, 'match')))} is missing")
        port, transport = _port(its, keys.pop("port", [""])[0])
        server = _server(its, settings, port, transport)
        whole = f"{its.word}.{name}" if name else its.word
        if whole in listeners and "terminate_tls" in keys:  # else routes of others are wrong
            why = f"[listen {whole}] has the same name; give the container another one, or add txmux.backend"
            raise LabelError(f"txmux.terminate_tls: {why}")
        open_ones = open_to(rules, f"{settings.file} [unit {unit_of(whole)}]")
        if "listen" in keys:
            under = _named(keys["listen"], listeners, open_ones, settings.file)
        else:
            under = _usual(Transport(transport), open_ones, settings.file)
        sections = _sections(its, keys, settings, under)
        if its.is_running or its.wakes:
            waits = keys["match"] == ["any"] and transport == "tcp" and port in SPEAK_FIRST
            warning = waits_for_both(port) if waits else ""
            yield LabelledRoute(its, whole, sections, server, is_drained, warning)


def _named(
    lines: Sequence[str], listeners: Collection[str], open_ones: Sequence[Listener], file: str
) -> list[str]:
    """Return the listeners that a label names, all of which have to allow the file's routes."""
    under: list[str] = re.findall(r"[^,\s]+", " ".join(lines))
    for name in under:
        if name not in listeners:
            hint = did_you_mean(name, sorted(listeners))
            raise LabelError(f"txmux.listen: there is no [listen {name}]{hint}")
        if all(name != one.name for one in open_ones):
            why = f"[listen {name}] allows no routes of {file}"
            raise LabelError(f"txmux.listen: {why}; add 'routes_from = {Path(file).stem}' there")
    return under


def _usual(transport: Transport, open_ones: Sequence[Listener], file: str) -> list[str]:
    under = [one.name for one in open_ones if one.transport is transport]
    if not under:
        of = f" of {transport.value.upper()}" if open_ones else ""
        why = f"no listener{of} allows routes of {file}"
        raise LabelError(f"{why}; add 'routes_from = {Path(file).stem}' to one")
    return under


def _check_container(its: Container) -> None:
    for what, name in (("its name", its.name), ("txmux.backend", its.word)):
        if not NAME.fullmatch(name):
            why = "is not a name; use letters, digits, '.', '_' and '-'"
            raise LabelError(f"{what}: {printable(name, 80)!r} {why}")
    if its.labels.get("wake", "no") not in {"yes", "no"}:
        raise LabelError("txmux.wake: must be yes or no")
    try:
        positive_duration(its.labels.get("sleep", "1s"))
    except InvalidValueError as error:
        raise LabelError(f"txmux.sleep: {error}") from None
    if its.sleep and not its.wakes:
        raise LabelError("txmux.sleep: nothing would start it again; add txmux.wake=yes")


def _sections(
    its: Container, keys: Keys, settings: LabelRules, under: Sequence[str]
) -> tuple[Keys, Keys]:
    of_route: dict[str, Sequence[str]] = {"match": keys["match"], "under": under}
    of_backend: dict[str, Sequence[str]] = {"hold": [_HOLD]} if its.wakes else {}
    for key, values in keys.items():
        if key not in _OWN:
            _check_allowed(key, values, settings)
            (of_route if is_of_route(key, keys) else of_backend)[key] = values
    if its.wakes:
        of_backend["wake"] = [f"http POST {settings.wake}/{its.word}"]
    return of_route, of_backend


def _check_allowed(key: str, values: Sequence[str], settings: LabelRules) -> None:
    if key in settings.allowed:
        return
    if only := all_that_labels_may_set(key, values, is_own_address=settings.network is not None):
        advice = f"the provider's --allow-label {key} lets them"
        raise LabelError(f"txmux.{key}: labels may set {only}; {advice}")


def _port(its: Container, given: str) -> tuple[int, str]:
    if not given and len(its.exposed) != 1:
        what = "several ports" if its.exposed else "no port"
        raise LabelError(f"txmux.port is missing, and it exposes {what}")
    given = given or its.exposed[0]
    found = _PORT.fullmatch(given)
    if found is None or not 0 < int(found[1]) < 65536:
        why = "is no port; write for example 8080 or 53/udp"
        raise LabelError(f"txmux.port: {printable(given, 80)!r} {why}")
    return int(found[1]), found[2] or "tcp"


def _server(its: Container, settings: LabelRules, port: int, transport: str) -> str:
    if not its.is_running:  # nothing connects to it
        host, number, why = "127.0.0.1", port, ""
    elif settings.network is None:
        host, number = its.published.get(f"{port}/{transport}", ("-", 0))
        host = _ANY.get(host, host)
        why = f"it does not publish port {port}/{transport}; publish it, or start the provider with --network"
    else:
        host, number = its.addresses.get(settings.network, "-"), port
        why = f"it has no address on the network {settings.network}; connect it"
    try:
        ip = ip_address(printable(host))  # whose interface may be any text
    except ValueError:
        raise LabelError(why) from None
    address = f"{bracketed(ip)}:{number}"
    return f"udp:{address}" if transport == "udp" else address
