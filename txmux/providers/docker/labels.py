"""From the labels of containers to sections of rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import attrs

from txmux.errors import MuxError, printable
from txmux.interfaces import ProvidedObject
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading import backend, route
from txmux.rules.reading.values import NAME, duration

_PREFIX = "txmux."
_OWN = frozenset({"match", "listen", "port", "backend", "wake", "sleep"})
_OF_ROUTE = ["dry_run", "during", "from", "not_from"]
_OF_BACKEND = [
    "alpn",
    "answers",
    "balance",
    "check",
    "connect_timeout",
    "download_rate",
    "eject",
    "end_on_down",
    "hold",
    "hold_limit",
    "idle_timeout",
    "max_connections",
    "max_duration",
    "proxy_protocol",
    "proxy_tlvs",
    "queue",
    "retries",
    "slow_start",
    "tls",
    "tls_name",
    "unanswered_timeout",
    "upload_rate",
]
_ALLOWED = frozenset({*_OF_ROUTE, *_OF_BACKEND})
"""Keys that give a container nothing of the host's: no file, no server but its own, nobody else's address."""
NEVER = frozenset({"server"})
SETTABLE = frozenset({*route.KEYS, *backend.KEYS}) - _OWN - NEVER
"""What ``--allow-label`` may name."""
_FILE = re.compile(r"[/~]|\.\w*[a-z]\w*$|:[^:]*/|\Acrowdsec:", re.IGNORECASE)
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp))?")
_LONGEST = 4096  # characters of a value
_MOST = 100  # labels of a container
_HOLD = "60s"
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


class LabelError(MuxError):
    """A container cannot be served; the message says which label is wrong, and what would be right."""


@attrs.frozen
class Container:
    """What the daemon reports of a container; `published` has the addresses on the host, by ports such as ``80/tcp``."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    health: str
    exposed: tuple[str, ...]
    published: Mapping[str, tuple[tuple[str, int], ...]]
    addresses: Mapping[str, str]

    @classmethod
    def read(cls, answer: Any) -> Container:
        """Read an answer to ``/containers/{id}/json``; raises one of `MISSHAPEN` if it is none."""
        config, state, network = answer["Config"], answer["State"], answer["NetworkSettings"]
        ports = network.get("Ports") or {}
        bindings = {**(answer.get("HostConfig", {}).get("PortBindings") or {}), **ports}
        return cls(
            str(answer["Id"]),
            str(answer["Name"]).removeprefix("/"),
            {str(name): str(value) for name, value in (config.get("Labels") or {}).items()},
            str(state["Status"]),
            str((state.get("Health") or {}).get("Status", "")),
            tuple(sorted({*map(str, config.get("ExposedPorts") or {}), *map(str, bindings)})),
            {
                str(port): tuple(
                    (str(one.get("HostIp", "")), int(one.get("HostPort") or 0)) for one in bound
                )
                for port, bound in bindings.items()
                if bound
            },
            {
                str(name): str(its.get("IPAddress") or its.get("GlobalIPv6Address") or "")
                for name, its in (network.get("Networks") or {}).items()
            },
        )

    @property
    def is_ours(self) -> bool:
        return any(name.startswith(_PREFIX) for name in self.labels)

    @property
    def is_running(self) -> bool:
        return self.state in {"running", "paused", "stopping"}


@attrs.frozen
class LabelRules:
    """How labels are read.

    Attributes:
        network: Where containers are reached; without it, at their published ports.
        allowed: Keys that labels may set in addition.
        wake: The URL to which the names of sleeping containers are added.
    """

    network: str | None = None
    allowed: frozenset[str] = frozenset()
    wake: str = "unix:/run/txmux/wake.sock:"


@attrs.frozen
class LabelledRoute:
    """A route that the labels of a container describe."""

    name: str  # of its sections
    route: tuple[tuple[str, tuple[str, ...]], ...]
    backend: tuple[tuple[str, tuple[str, ...]], ...]
    server: str
    container: str

    def is_like(self, other: LabelledRoute) -> bool:
        return (self.route, self.backend) == (other.route, other.backend)


def objects_of(
    containers: Iterable[Container],
    settings: LabelRules,
    listeners: Collection[str],
    stopping: Collection[str] = (),
) -> list[ProvidedObject]:
    """Return the sections of containers, in the order of their names.

    Args:
        containers: Those with labels.
        settings: How they are read.
        listeners: The names of the service's listeners.
        stopping: The IDs of those that are being stopped.
    """
    groups: dict[tuple[bool, str], list[LabelledRoute]] = {}
    objects = []
    names: set[str] = set()
    for container in sorted(containers, key=lambda one: (one.name, one.id)):
        try:
            if container.name in names:
                raise LabelError("another container has its name")  # noqa: TRY301
            names.add(container.name)
            routes = [*_routes(container, settings, listeners, container.id in stopping)]
            _join(groups, routes, shared="txmux.backend" in container.labels)
        except (LabelError, InvalidValueError) as error:  # noqa: PERF203 - a bad one does not hide the others
            objects.append(ProvidedObject(f"container {container.name}", problem=str(error)))
    for (_, name), same in groups.items():
        of = ", ".join(one.container for one in same)
        label = f"container{'s' * bool(same[1:])} {of}, route {name}"
        objects.append(ProvidedObject(label, _text(same)))
    return objects


def _join(
    groups: dict[tuple[bool, str], list[LabelledRoute]],
    routes: Sequence[LabelledRoute],
    *,
    shared: bool,
) -> None:
    """Add the routes of a container to those of others, all or none; `shared` if it names a backend."""
    for one in routes:
        others = groups.get((shared, one.name), [])
        if (not shared, one.name) in groups or (others and not shared):
            raise LabelError(f"there is a [route {one.name}] of another container already")
        if others and not one.is_like(others[0]):
            raise LabelError(
                f"its labels differ from those of container {others[0].container}, which has the same txmux.backend"
            )
    for one in routes:
        groups.setdefault((shared, one.name), []).append(one)


def _text(same: Sequence[LabelledRoute]) -> str:
    first = same[0]
    keys = [*first.backend, ("server", tuple(one.server for one in same))]
    lines = ["", f"[route {first.name}]"]
    for key, values in (*first.route, ("backend", (first.name,))):
        lines += _lines(key, values)
    lines += ["", f"[backend {first.name}]"]
    for key, values in keys:
        lines += _lines(key, values)
    return "\n".join(lines)


def _lines(key: str, values: Sequence[str]) -> Iterator[str]:
    yield f"{key} = {values[0]}"
    yield from (f"    {value}" for value in values[1:])


def _routes(
    container: Container,
    settings: LabelRules,
    listeners: Collection[str],
    is_stopping: bool,  # noqa: FBT001
) -> Iterator[LabelledRoute]:
    if not NAME.fullmatch(container.name):
        raise LabelError("its name is not a name of rules: only letters, digits, '.', '_' and '-'")
    labels = {
        n.removeprefix(_PREFIX): v for n, v in container.labels.items() if n.startswith(_PREFIX)
    }
    if len(labels) > _MOST:
        raise LabelError(f"it has more than {_MOST} labels that begin with {_PREFIX}")
    whole = {key: _value(key, labels[key]) for key in ("backend", "wake", "sleep") if key in labels}
    word = whole.get("backend", container.name)
    if not NAME.fullmatch(word):
        raise LabelError(
            f"txmux.backend: {printable(word)!r} is not a name; use letters, digits, '.', '_' and '-'"
        )
    wakes = _is_yes("wake", whole.get("wake", "no"))
    if "sleep" in whole:
        sleep_of(container)
        if not wakes:
            raise LabelError("txmux.sleep: nothing would start it again; add txmux.wake=yes")
    if not container.is_running and not wakes:
        return
    for name, keys in _by_route(labels).items():
        yield _labelled_route(
            container,
            settings,
            listeners,
            f"{word}.{name}" if name else word,
            keys,
            wakes,
            is_stopping,
        )


def sleep_of(container: Container) -> float:
    """Return the seconds without a connection after which a container is stopped; 0 if it never is."""
    text = container.labels.get("txmux.sleep")
    try:
        return duration(text) if text is not None else 0.0
    except InvalidValueError as error:
        raise LabelError(f"txmux.sleep: {error}") from None


def _by_route(labels: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Return the values of each key, by the names of routes."""
    known = _OWN | SETTABLE | NEVER
    routes: dict[str, dict[str, list[str]]] = {}
    for label in sorted(labels, key=_by_number):
        if label in {"backend", "wake", "sleep"}:
            continue
        name, _, rest = label.partition(".")
        if name in known:
            name, rest = "", label
        key, _, number = rest.partition(".")
        if key not in known:
            raise LabelError(
                f"txmux.{printable(label)}: there is no such label{did_you_mean(key or name, sorted(known))}"
            )
        if (number and not (number.isdecimal() and number.isascii())) or (
            name and not NAME.fullmatch(name)
        ):
            raise LabelError(
                f"txmux.{printable(label)}: there is no such label; write txmux.{key}, or txmux.{key}.2 for another line"
            )
        routes.setdefault(name, {}).setdefault(key, []).append(_value(label, labels[label]))
    if not routes:
        raise LabelError("it has no label txmux.match")
    return routes


def _by_number(label: str) -> tuple[str, int]:
    key, _, number = label.rpartition(".")
    return (
        (key, int(number))
        if number.isdecimal() and number.isascii() and len(number) < 10
        else (label, 0)
    )


def _value(label: str, text: str) -> str:
    text = text.strip()
    if not text.isprintable() or len(text) > _LONGEST:
        raise LabelError(
            f"txmux.{printable(label)}: is more than one line of text; write further lines as txmux.{printable(label)}.2"
        )
    if not text or text[0] in "#;":
        raise LabelError(f"txmux.{printable(label)}: has no value")
    return text.replace("$", "$$")  # it would begin a variable of the host's environment


def _labelled_route(
    container: Container,
    settings: LabelRules,
    listeners: Collection[str],
    name: str,
    keys: Mapping[str, Sequence[str]],
    wakes: bool,  # noqa: FBT001
    is_stopping: bool,  # noqa: FBT001
) -> LabelledRoute:
    of_route: list[tuple[str, tuple[str, ...]]] = []
    of_backend: list[tuple[str, tuple[str, ...]]] = []
    for key, values in keys.items():
        if key in _OWN:
            continue
        _check_allowed(key, values, settings.allowed)
        ends_tls = "terminate_tls" in keys
        is_of_route = key in route.KEYS and (key not in backend.KEYS or ends_tls)
        (of_route if is_of_route else of_backend).append((key, tuple(values)))
    if "match" not in keys:
        raise LabelError(f"route {name} has no label match")
    if "listen" in keys:
        of_route.append(("under", tuple(_listeners(keys["listen"], listeners))))
    if wakes:
        if "hold" not in keys:
            of_backend.append(("hold", (_HOLD,)))
        of_backend.append(("wake", (f"http POST {settings.wake}/{name}",)))
    port, transport = _port(container, keys.get("port", ()))
    if container.is_running:
        address = _address(container, settings, port, transport)
        is_drained = is_stopping or container.state != "running" or container.health == "unhealthy"
    else:
        address, is_drained = f"127.0.0.1:{port}", True
    server = f"{'udp:' * (transport == 'udp')}{address}{' down' * is_drained}"
    matches = ("match", tuple(keys["match"]))
    return LabelledRoute(
        name, (matches, *sorted(of_route)), tuple(sorted(of_backend)), server, container.name
    )


def _check_allowed(key: str, values: Sequence[str], allowed: Collection[str]) -> None:
    if key in allowed:
        return
    is_acme = key == "terminate_tls" and all(v == "acme" or v.startswith("acme ") for v in values)
    if key not in _ALLOWED and not is_acme:
        more = f"; if they may, add --allow-label {key}" if key in SETTABLE else ""
        raise LabelError(f"txmux.{key}: labels may not set it{more}")
    if key in {"from", "not_from"} and any(map(_FILE.search, _items(values))):
        raise LabelError(
            f"txmux.{key}: labels may name networks only, no file and no list; if they may, add --allow-label {key}"
        )


def _items(values: Iterable[str]) -> list[str]:
    return [item for value in values for item in re.split(r"[,\s]+", value)]


def _listeners(values: Iterable[str], listeners: Collection[str]) -> Iterator[str]:
    for name in _items(values):
        if name not in listeners:
            raise LabelError(
                f"txmux.listen: there is no [listen {printable(name)}]{did_you_mean(name, sorted(listeners))}"
            )
        yield name


def _is_yes(label: str, text: str) -> bool:
    if text not in {"yes", "no", "true", "false"}:
        raise LabelError(f"txmux.{label}: write yes or no")
    return text in {"yes", "true"}


def _port(container: Container, given: Sequence[str]) -> tuple[int, str]:
    if not given:
        if len(container.exposed) != 1:
            what = "several ports" if container.exposed else "no port"
            raise LabelError(f"it exposes {what}; add for example txmux.port=8080")
        given = container.exposed
    found = _PORT.fullmatch(given[0])
    if found is None or not 0 < int(found[1]) < 65536:
        raise LabelError(
            f"txmux.port: {printable(given[0])!r} is no port; write for example 8080 or 53/udp"
        )
    return int(found[1]), found[2] or "tcp"


def _address(container: Container, settings: LabelRules, port: int, transport: str) -> str:
    if settings.network is not None:
        if settings.network not in container.addresses:
            raise LabelError(f"it is not on the network {settings.network!r}; connect it to that")
        return _host_and_port(container.addresses[settings.network], port)
    published = container.published.get(f"{port}/{transport}", ())
    if not published:
        raise LabelError(
            f"it does not publish port {port}/{transport}; publish it, or name a network that txmux is on, too, by --network"
        )
    host, number = published[0]
    return _host_and_port(_ANY.get(host, host), number)


def _host_and_port(host: str, port: int) -> str:
    try:
        ip = ip_address(host)
    except ValueError:
        raise LabelError("it has no address there yet") from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
