"""Labels of containers in a compose file, and the arguments of Traefik's own, as the configuration that Traefik makes of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import attrs

from txmux_convert.traefik.reader import MOST_DEPTH, Node
from txmux_convert.writer import ConvertError, Draft

_KEY = re.compile(r"([^\[\]]+)(?:\[([0-9]{1,4})\])?")
_SERVICE = re.compile(
    r"(?P<begin>(?P<kind>tcp|udp)\.services\.(?P<name>[^.]+))\.loadbalancer\.server\.(?P<key>.+)",
    re.IGNORECASE,
)
_ROUTER = re.compile(
    r"(?P<kind>tcp|udp)\.routers\.(?P<name>[^.]+)\.(?P<key>[^.]+)(?:\..*)?", re.IGNORECASE
)
_LISTS = frozenset(
    {"alpnprotocols", "cafiles", "entrypoints", "middlewares", "sans", "sourcerange", "trustedips"}
)
_DOCKER = "providers.docker"
_IMAGE = re.compile(r"(?:.*/)?traefik(?:[:@][^/]*)?")
_PORT = re.compile(r"(?:.*:)?([0-9]{1,5})(?:/(?:tcp|udp))?")

_Pair = tuple[str, Node]


def is_compose(top: Node) -> bool:
    return any(_labels(service) for _, service in top.get("services").items())


def read_compose(top: Node, draft: Draft) -> Node:
    """Return the configuration that Traefik has by a compose file; servers have the names of their services there."""
    services = [*top.get("services").items()]
    arguments = [pair for _, service in services for pair in _arguments(service)]
    by_default = dict(arguments).get(f"{_DOCKER}.exposedbydefault", Node("true", 1)).is_set
    pairs = [pair for pair in arguments if not pair[0].startswith(_DOCKER)]
    places: dict[
        str, int
    ] = {}  # of servers of a Traefik service, which several containers may have
    hosts = []
    for name, service in services:
        labels = _labels(service)
        enabled = {path.lower(): value for path, value in labels}.get("enable")
        if (enabled.is_set if enabled else by_default) and labels:
            found = [*_of_container(name, service, labels, draft, places)]
            hosts += [name] * any(".servers[" in path for path, _ in found)
            pairs += found
    if hosts:
        draft.notes.append(
            f"servers have the names of their compose services ({', '.join(hosts)}), which are known in their network alone"
        )
    for path, value in pairs:
        if path.count(".") >= MOST_DEPTH:
            raise ConvertError(
                f"{draft.path}:{value.line}: {path[:40]}... has over {MOST_DEPTH} parts between dots"
            )
    return _tree(pairs)


def _labels(service: Node) -> list[_Pair]:
    """Return what follows ``traefik.`` in the labels of a service, with the values."""
    found = [*_assignments(service.get("labels")), *_assignments(service.get("deploy", "labels"))]
    return [
        (name[8:], attrs.evolve(value, value=value.text.replace("$$", "$")))
        for name, value in found
        if name.lower().startswith("traefik.")
    ]


def _assignments(node: Node) -> Iterator[_Pair]:
    """Yield the pairs of a mapping, or of a list of texts ``NAME=VALUE``."""
    yield from node.items()
    for item in node.each():
        name, _, value = item.text.partition("=")
        yield name.strip(), attrs.evolve(item, value=value.strip())


def _arguments(service: Node) -> Iterator[_Pair]:
    """Yield the arguments ``--NAME=VALUE`` of Traefik's own container."""
    command = service.get("command")
    try:
        words = [Node(word, command.line) for word in shlex.split(command.text)] or command.each()
    except ValueError:
        words = []
    options = [word.text.startswith("--") for word in words]
    is_traefik = _IMAGE.fullmatch(service.get("image").text) is not None
    if is_traefik or any(one.text.lower().startswith("--entrypoints.") for one in words):
        for at, word in enumerate(words):
            name, equals, value = word.text[2:].partition("=")
            if not equals:  # then the next word is the value, or it is a boolean
                value = "true" if all(options[at + 1 : at + 2]) else words[at + 1].text
            if options[at]:
                yield name.lower(), attrs.evolve(word, value=value)


def _of_container(
    name: str, service: Node, labels: list[_Pair], draft: Draft, places: dict[str, int]
) -> Iterator[_Pair]:
    """Yield the labels of a container with its server, and the service of routers that name none, as Traefik finds them."""
    given: dict[tuple[str, str], dict[str, Node]] = {}  # of the server, by the Traefik service
    routers: dict[tuple[str, str], set[str]] = {}
    for path, value in labels:
        if (match := _SERVICE.fullmatch(path)) is not None:
            given.setdefault((match["kind"].lower(), match["name"]), {})[match["key"].lower()] = (
                value
            )
            continue
        if (match := _ROUTER.fullmatch(path)) is not None:
            its = routers.setdefault((match["kind"].lower(), match["name"]), set())
            its.add(match["key"].lower())
        if path.lower() != "enable":
            yield path, value
    for (kind, router), keys in routers.items():
        if "service" not in keys:
            own = [one for its, one in given if its == kind] or [name]
            if len(own) > 1:
                message = (
                    f"router {router}: names none of its container's services {', '.join(own)}"
                )
                draft.flag(labels[0][1].line, message)
                continue
            given.setdefault((kind, own[0]), {})
            yield f"{kind}.routers.{router}.service", Node(own[0], labels[0][1].line)
    for (kind, target), options in given.items():
        path = f"{kind}.services.{target}.loadbalancer"
        port = options.pop("port", None) or _only_port(service)
        if port is None:
            message = f"service {name}: its port is not known; add the label traefik.{path}.server.port=PORT"
            draft.flag(labels[0][1].line, message)
            continue
        place = f"{path}.servers[{places.get(target, 0)}]"
        places[target] = places.get(target, 0) + 1
        yield f"{place}.address", attrs.evolve(port, value=f"{name}:{port.text}")
        yield from ((f"{place}.{key}", value) for key, value in options.items())


def _only_port(service: Node) -> Node | None:
    """Return the only port that a container exposes, as far as the file says."""
    named = [*service.get("expose").each(), *service.get("ports").each()]
    texts = [one.text or one.get("target").text for one in named]
    ports = {match[1] for text in texts if (match := _PORT.fullmatch(text))}
    return Node(ports.pop(), service.line) if len(ports) == 1 else None


def _tree(pairs: list[_Pair]) -> Node:
    """Nest values by the parts of their paths; ``[0]`` after a part is a place in a list."""
    root: dict[Any, Any] = {}
    for path, value in pairs:
        parts: list[Any] = []
        for part in path.split("."):
            match = _KEY.fullmatch(part)
            parts += [part] if match is None else [match[1], *([int(match[2])] if match[2] else [])]
        inside = root
        for part in parts[:-1]:
            if not isinstance(inside.setdefault(part, {}), dict):
                inside[part] = {}  # `tls=true` beside `tls.certresolver`
            inside = inside[part]
        if not isinstance(inside.get(parts[-1]), dict):
            inside[parts[-1]] = value
    return _node(root, "")


def _node(tree: Any, key: Any) -> Node:
    if isinstance(tree, Node):
        is_list = str(key).lower() in _LISTS and isinstance(tree.value, str)
        words = [word.strip() for word in tree.text.split(",")] if is_list else []
        return (
            attrs.evolve(tree, value=[Node(word, tree.line) for word in words]) if is_list else tree
        )
    nodes = {name: _node(inside, name) for name, inside in tree.items()}
    line = min((node.line for node in nodes.values()), default=1)
    if nodes and all(isinstance(name, int) for name in nodes):
        return Node([nodes[at] for at in sorted(nodes)], line)
    names = {str(name).lower(): str(name) for name in nodes}
    return Node({str(name).lower(): node for name, node in nodes.items()}, line, names)
