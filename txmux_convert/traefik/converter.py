"""The TCP and UDP routers of Traefik's files, of Traefik 2 and 3, as rules."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from txmux_convert.routes import RouteWriter
from txmux_convert.terms import InexpressibleError
from txmux_convert.traefik.compose import is_compose, read_compose
from txmux_convert.traefik.reader import Node, read_file
from txmux_convert.traefik.routers import EntryPoint, Router, Routing
from txmux_convert.traefik.services import Services, duration
from txmux_convert.writer import ConvertError, Draft, acting_as, read_named

_SUFFIXES = frozenset({".yml", ".yaml", ".toml"})
WITHOUT_EFFECT = {
    "providers.file.debugloggeneratedtemplate": "what is logged",
    "providers.file.watch": "files are converted as they are now",
    "providers.providersthrottleduration": "how often providers are asked",
}
"""What has no counterpart and no report, and why it needs none; all else that nothing here asks for is reported."""

_ASIDE = {
    **dict.fromkeys(("log", "global", "core", "experimental", "hostresolver", "tracing"), ""),
    "accesslog": "access_log in [txmux]",
    "api": "admin in [txmux]",
    "metrics": "metrics in [txmux]",
    "ping": "/readyz",
}
_FOR_HTTP = "it is for HTTP, which txmux relays as it is"
_WHY = {
    "dialkeepalive": "keepalive of [listen] is for both sides",
    "http": _FOR_HTTP,
    "storage": "acme_folder in [txmux]",
    "serverstransport": _FOR_HTTP,
    "terminationdelay": "when one side has finished, the other has a minute",
    "httpchallenge": "txmux answers by TLS-ALPN-01, at port 443",
    "tlschallenge": "txmux always answers by TLS-ALPN-01",
    "unhealthyinterval": "interval is for all servers",
}
_NAMED = ("tcp.services", "tcp.middlewares", "tcp.serverstransports", "tls.options", "udp.services")
"""What is in these and is not used here, no router uses in Traefik either."""


def convert_traefik(data: bytes, draft: Draft, entry_points: Mapping[str, str]) -> None:
    """Make rules of Traefik's static configuration and of the files that it names."""
    top = read_file(data, draft.path)
    if is_compose(top):
        top = read_compose(top, draft)
    files = [top, *_provided(top, draft)]
    routers = dict(_named(files, "tcp", "routers"))
    udp_routers = dict(_named(files, "udp", "routers"))
    if not routers and not udp_routers:
        raise ConvertError(
            f"{draft.path}: there are no tcp.routers or udp.routers in it, nor in files that it provides"
        )
    points = [EntryPoint(name, node) for name, node in top.get("entryPoints").items()]
    points += [
        EntryPoint(name, Node({"address": Node(address, 1)}, 1, {"address": "address"}))
        for name, address in entry_points.items()
    ]
    nodes = (*routers.values(), *udp_routers.values())
    named = [name for node in nodes for name in node.get("entryPoints").texts()]
    names = {point.name for point in points}
    if not names or (named and names.isdisjoint(named)):
        which = ", ".join(dict.fromkeys(named)) or "websecure"
        raise ConvertError(
            f"{draft.path}: the entryPoints of its routers are not in it: say where each is that is listened on ({which}), as in "
            f"--entrypoint {(named or ['websecure'])[0]}=:443, or convert the file that has them and names this one in providers.file"
        )
    transports = _by_name(files, "tcp", "serversTransports")
    if top.get("tcpServersTransport").is_set:
        transports[""] = top.get("tcpServersTransport")
    services = Services(_by_name(files, "tcp", "services"), transports, draft)
    routes = RouteWriter(draft)
    routing = Routing(
        routes,
        services,
        _by_name(files, "tcp", "middlewares"),
        _by_name(files, "tls", "options"),
        _certificates(files),
        frozenset(names),
        _authority(top, [node.get("tls", "certResolver").text for node in routers.values()], draft),
    )
    streams = [point for point in points if not point.is_udp]
    usual = [p.name for p in streams if p.node.get("asDefault").is_set] or [p.name for p in streams]
    read = [Router.read(name, node, usual) for name, node in routers.items()]
    http_routers = _named(files, "http", "routers")
    http = {name for _, node in http_routers for name in node.get("entryPoints").texts()}
    taken = {*named}
    if not all(node.get("entryPoints").is_set for node in udp_routers.values()):
        taken.update(point.name for point in points if point.is_udp)
    _listeners(points, read, taken, http, routing)
    _datagrams(files, points, udp_routers, routes)
    _report_unused(files, draft)
    if read:
        draft.notes.append(
            "Traefik never ends a connection that is idle; txmux does, after idle_timeout of [backend], 1h by default"
        )
    if any(router.is_tls for router in read):
        draft.notes.append(
            "Traefik also takes PostgreSQL clients that ask for TLS first: for these, add 'postgres sni=NAME' to match"
        )
    routes.finish()


def _listeners(
    points: list[EntryPoint], read: list[Router], taken: set[str], http: set[str], routing: Routing
) -> None:
    draft, names = routing.routes.draft, {point.name for point in points}
    for router in read:
        for name in router.points:
            if name not in names:
                message = f"router {router.name}: is left out at {name}: there is no such entry point; add --entrypoint {name}=ADDRESS:PORT"
                draft.flag(router.node.line, message)
    for point in points:
        own = [router for router in read if point.name in router.points]
        if own:
            routing.convert(point, own, with_http=point.name in http)
        elif point.name not in taken:
            draft.warn(
                point.node.line, f"entryPoints.{point.name}: is left out: no router is at it"
            )
            point.node.leave_out()


def _report_unused(files: Iterable[Node], draft: Draft) -> None:
    for http in [node for file in files if (node := file.get("http")).is_set]:
        draft.warn(http.line, f"http: is left out: {_FOR_HTTP}")
        http.leave_out()
    for path, node in [unused for file in files for unused in file.unused()]:
        place = path.lower()
        if place in _ASIDE:
            draft.set_aside(node.line, path, _ASIDE[place])
        elif place not in WITHOUT_EFFECT:
            parent, _, name = place.rpartition(".")
            if parent not in _NAMED:
                why = _WHY.get(name, "it has no counterpart")
                draft.warn(node.line, f"{path}: is left out: {why}")


def _provided(top: Node, draft: Draft) -> Iterator[Node]:
    providers = top.get("providers")
    for name, node in providers.items():
        if name.lower() not in {"file", "providersthrottleduration"}:
            draft.flag(
                node.line, f"providers.{name}: what it provides is not in files, and is left out"
            )
    folder, single = providers.get("file", "directory"), providers.get("file", "filename")
    parent = Path(draft.path).parent
    places: list[tuple[Path, int]] = []
    if single.text:
        places.append((parent / single.text, single.line))
    if folder.text:
        with acting_as(draft.author):
            files = sorted((parent / folder.text).rglob("*"))
        places += [(file, folder.line) for file in files if file.suffix in _SUFFIXES]
        if not files:
            draft.flag(folder.line, f"providers.file.directory: {folder.text} has no files here")
    for file, line in places:
        try:
            data = read_named(file, draft)
        except OSError as error:
            draft.flag(line, f"providers.file: {file} cannot be read: {error.strerror}")
        else:
            yield _placed(read_file(data, str(file)), str(file), draft)


def _placed(node: Node, file: str, draft: Draft) -> Node:
    """Number the lines of another file, so that reports name the file."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(inside, file, draft) for key, inside in value.items()}
    elif isinstance(value, list):
        value = [_placed(inside, file, draft) for inside in value]
    return Node(value, draft.line_in(file, node.line), node.names)


def _named(files: list[Node], *path: str) -> Iterator[tuple[str, Node]]:
    for file in files:
        yield from file.get(*path).items()


def _by_name(files: list[Node], *path: str) -> dict[str, Node]:
    return {name.lower(): node for name, node in _named(files, *path)}


def _certificates(files: list[Node]) -> list[Node]:
    """Return the certificates, the default one first: it is for all names without one."""
    pairs = [file.get("tls", "stores", "default", "defaultCertificate") for file in files]
    pairs += [pair for file in files for pair in file.get("tls", "certificates").each()]
    return [pair for pair in pairs if pair.get("certFile").text]


_LETS_ENCRYPT = {
    "https://acme-v02.api.letsencrypt.org/directory": "letsencrypt",
    "https://acme-staging-v02.api.letsencrypt.org/directory": "letsencrypt-staging",
}


def _authority(top: Node, used: list[str], draft: Draft) -> str:
    """Write the authority of a certificate resolver that routers use, and return its name."""
    resolvers = [
        (name, node.get("acme"))
        for name, node in top.get("certificatesResolvers").items()
        if name in used
    ]
    usable = []
    for name, acme in resolvers:
        if acme.get("dnsChallenge").is_set and not acme.get("tlsChallenge").is_set:
            message = f"certificatesResolvers.{name}: txmux has no dnsChallenge; get its certificates with another client, and name the files in terminate_tls"
            draft.flag(acme.line, message)
        else:
            usable.append((name, acme))
    for name, acme in usable[:1]:
        section = draft.section("txmux", line=acme.line)
        server = acme.get("caServer")
        section.add(
            "acme", _LETS_ENCRYPT.get(server.text, server.text or "letsencrypt"), server.line
        )
        section.add("acme_terms", "yes", acme.line)
        message = f"certificatesResolvers.{name}: Traefik agrees to the terms of the authority by itself, as acme_terms does here; read them"
        draft.warn(acme.line, message, section)
        if acme.get("email").text:
            section.add("acme_email", acme.get("email").text, acme.get("email").line)
        for authority in acme.get("caCertificates").each()[:1]:
            section.add_path("acme_ca", authority.text, authority.line)
        for other, node in usable[1:]:
            message = f"certificatesResolvers.{other}: is left out; txmux asks one authority"
            draft.flag(node.line, message)
        return name
    return ""


def _datagrams(
    files: list[Node], points: list[EntryPoint], routers: Mapping[str, Node], routes: RouteWriter
) -> None:
    services = Services(_by_name(files, "udp", "services"), {}, routes.draft, "udp:")
    named = [(router, router[1].get("entryPoints").texts()) for router in routers.items()]
    for point in points:
        # Without a name, a router is at all entry points for UDP.
        own = [r for r, names in named if point.name in names or (point.is_udp and not names)]
        if own and point.is_udp:
            _listener_of_datagrams(point, own, services, routes)
        elif own:
            message = f"router {own[0][0]}: entryPoints.{point.name} is not for UDP; write /udp after its port"
            routes.draft.flag(own[0][1].line, message)


_TIMEOUT = "3s"
"""Traefik's default for the idle time of a session."""


def _listener_of_datagrams(
    point: EntryPoint, routers: list[tuple[str, Node]], services: Services, routes: RouteWriter
) -> None:
    node = point.node
    section = routes.draft.section("listen", point.name, node.line)
    routes.listeners.append(section)
    section.add("endpoint", point.endpoint, node.get("address").line)
    (name, router), *others = routers
    for other, unused in others:
        message = f"router {other}: is left out: entryPoints.{point.name} has {name} already, and Traefik takes one of them"
        section.flag(unused.line, message)
    timeout = duration(node.get("udp", "timeout").text or _TIMEOUT)
    try:
        section.add("default", services.outcome(router.get("service").text, timeout), router.line)
    except InexpressibleError as error:
        section.flag(router.line, f"router {name}: its clients are closed: {error}")
