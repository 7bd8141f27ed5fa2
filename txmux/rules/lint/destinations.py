"""Warnings about servers that clients reach by one route although another one keeps some clients from them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from txmux.rules.advice.words import did_you_mean
from txmux.rules.installed import conditions
from txmux.rules.lint.access import needs_certificate, required_ca
from txmux.rules.lint.coverage import lines_of
from txmux.rules.lint.scopes import scopes
from txmux.rules.model import Backend, Listener, Outcome, Refusal, Route, Rules, Section
from txmux.rules.model.backend import backends_of
from txmux.rules.model.rules import each_once
from txmux.rules.problems import Problem
from txmux.transport import is_address, normal_host

_OF_STARTUP = frozenset({"user", "database", "application"})
"""The options of ``postgres`` that a request for encryption says nothing about."""


def unprovided(rules: Rules) -> Iterator[Problem]:
    """Find names of backends that files of others may bring, and that none has now."""
    words = {refusal.value for refusal in Refusal}
    named: list[tuple[Section, str, Sequence[Outcome | None]]] = [
        *((its.section, "silent", [one.outcome for one in its.silent]) for its in rules.listeners),
        *((its.section, "default", [its.default]) for its in rules.listeners),
        *((its.section, "backend", [its.outcome]) for its in rules.routes),
        *((its.section, "fallback", [its.fallback]) for its in rules.backends.values()),
    ]
    for section, key, outcomes in named:
        for number, (item, outcome) in enumerate(zip(section.items(key), outcomes, strict=False)):
            name = item.text.partition(" ")[0]
            if outcome is Refusal.CLOSE and name not in words:
                hint = did_you_mean(name, sorted(rules.backends))
                message = (
                    f"no file that 'include' finds has a [backend {name}] now, so these clients are closed{hint}; "
                    "have its owner bring it back, or name another backend"
                )
                yield section.problem(message, key, number)


def bypassed_routes(rules: Rules) -> Iterator[Problem]:
    """Find backends that lead to what an earlier route closes to some clients by ``host=`` or ``sni=``.

    Such a route compares what a client writes. Another name of the same address passes by it, and so does another protocol.
    """
    reported = set()
    for scope in scopes(rules):
        guards: list[tuple[Route, str, str]] = []
        for rule in (*rules.routes_of(scope.owner), scope.owner):
            for backend in _by_name(rules, rule) if guards else ():
                for guard, fact, name in guards:
                    is_new = (backend.name, guard.name) not in reported
                    if is_new and _is_wider(rule, guard) and _leads_to(backend, fact, name):
                        reported.add((backend.name, guard.name))
                        yield backend.section.problem(_message(guard, fact, name), "allow_names")
            if isinstance(rule, Route):
                guards += _guarded(rule)


def bypassed_certificates(rules: Rules) -> Iterator[Problem]:
    """Find servers that some clients reach without the certificate that another route of the same listener requires.

    A client of HTTP may ask one for the site of the other: the name in TLS and the ``Host`` inside need not be the same (RFC 9110,
    section 7.4).
    """
    for scope in scopes(rules):
        terminating = [route for route in rules.routes_of(scope.owner) if route.terminate_tls]
        asked = defaultdict[str, list[tuple[Route, Route]]](list)  # what asks, in which route
        for route in terminating:
            for rule in (route, *rules.routes_of(route)):
                if not route.dry_run and (asking := _asking(route, rule)):
                    for server in _servers(rule):
                        asked[server].append((asking, route))
        for route in terminating if asked else ():
            for rule in (route, *rules.routes_of(route)):
                for server in _servers(rule) & asked.keys() if _is_open(route, rule) else ():
                    # It may let others in beside those with a certificate, as it says.
                    others = (its for its, outer in reversed(asked[server]) if outer is not route)
                    if (other := next(others, None)) is None:
                        continue
                    yield rule.section.problem(
                        f"{server} also serves [route {other.name}], which requires a certificate: by this route, its clients "
                        "need none, and a 'Host' of HTTP may name any site; give the two servers of their own, or routes 'under' this one "
                        "with 'http host='",
                        "backend",
                    )


def bypassed_databases(rules: Rules) -> Iterator[Problem]:
    """Find ways by which clients ask PostgreSQL for what an earlier route closes by ``user=``, ``database=`` or ``application=``.

    A client may begin with a request for encryption, which names none of them. A server that refuses that reads the names afterwards.
    """
    for scope in scopes(rules):
        guards: list[Route] = []
        for rule in (*rules.routes_of(scope.owner), scope.owner):
            may_ask = guards and (rule is scope.owner or _takes_requests(rule))
            servers = _servers(rule) if may_ask else set()
            for guard in guards if servers else ():
                is_closed = isinstance(guard.outcome, Refusal)
                if _is_wider(rule, guard) and (is_closed or servers & _servers(guard)):
                    yield rule.section.problem(
                        f"a client that asks for TLS first comes by this, and may then name what [route {guard.name}] closes: by its first "
                        "packet it has neither user nor database; let only routes 'postgres user=*' lead to that server",
                        "default" if isinstance(rule, Listener) else "match",
                    )
                    break
            if isinstance(rule, Route) and _reads_startup(rule):
                guards.append(rule)


def _reads_startup(route: Route) -> bool:
    """Return whether a route closes something to some clients by what PostgreSQL's first packet names."""
    is_open = route.dry_run or not (isinstance(route.outcome, Refusal) or any(_restrictions(route)))
    return not is_open and any(
        line.name == "postgres" and not line.negated and not _OF_STARTUP.isdisjoint(line.options)
        for _, _, line in lines_of([route])
    )


def _takes_requests(rule: Route | Listener) -> bool:
    """Return whether a request for encryption may come by a route."""
    return isinstance(rule, Route) and any(
        (line.negated and line.name != "postgres")
        or line.name == "any"
        or (line.name == "postgres" and _OF_STARTUP.isdisjoint(line.options))
        for _, _, line in lines_of([rule])
    )


def _servers(rule: Route | Listener) -> set[str]:
    outcome = rule.default if isinstance(rule, Listener) else rule.outcome
    return {server.text for backend in backends_of([outcome]) for server in backend.servers}


def _asking(route: Route, rule: Route) -> Route | None:
    """Return what requires a certificate of the clients of a route inside the TLS of another."""
    if required_ca(route):
        return route
    return rule if needs_certificate(rule) else None


def _is_open(route: Route, rule: Route) -> bool:
    is_limited = any(one.clients.limited or one.during or one.dry_run for one in (route, rule))
    is_asked = _asking(route, rule) is not None
    has_hosts = all(
        line.options.get("host") and not line.negated for _, _, line in lines_of([rule])
    )
    return not (is_limited or is_asked or rule.client_cert or has_hosts)


def _by_name(rules: Rules, rule: Route | Listener) -> list[Backend]:
    outcomes: list[Outcome | None]
    if isinstance(rule, Listener):
        outcomes = [rule.default]
    else:
        outcomes = [route.outcome for route in each_once([rule], rules.routes_of)]
    return [backend for backend in backends_of(outcomes) if backend.names]


def _guarded(route: Route) -> Iterator[tuple[Route, str, str]]:
    """Yield the names that a route closes to some clients; of a pattern, one that fits."""
    if route.dry_run or not (isinstance(route.outcome, Refusal) or any(_restrictions(route))):
        return
    for _, _, line in lines_of([route]):
        for fact in ("host", "sni") if not line.negated else ():
            patterns = line.options.get(fact, "")
            for pattern in patterns.split(",") if not patterns.startswith("~") else ():
                name = normal_host(pattern.strip().strip("[]"))
                if name not in {"", "none"}:
                    yield route, fact, name.replace("*", "a").replace("?", "a").removeprefix(".")


def _restrictions(route: Route) -> tuple[object, ...]:
    clients = route.clients if route.clients.limited else None
    return clients, *conditions(route), route.client_cert, required_ca(route)


def _is_wider(rule: Route | Listener, guard: Route) -> bool:
    is_closed = isinstance(guard.outcome, Refusal)
    return is_closed or isinstance(rule, Listener) or _restrictions(rule) != _restrictions(guard)


def _leads_to(backend: Backend, fact: str, name: str) -> bool:
    if fact not in backend.names or not backend.allows(name):
        return False
    return backend.reaches(ip_address(name)) if is_address(name) else backend.deny_networks is None


def _message(guard: Route, fact: str, name: str) -> str:
    networks = (
        f"'deny_networks = {name}'" if is_address(name) else "'deny_networks' with its addresses"
    )
    return (
        f"it has {name!r}, which [route {guard.name}] closes to some clients by {fact}=: another name of that address passes by this, and so "
        f"does another protocol; add {networks}"
    )


def forged_headers(rules: Rules) -> Iterator[Problem]:
    """Find backends by which clients may write a PROXY header of their own to a server that believes those of this service."""
    backends = rules.every_backend()
    believing = [
        (one, server)
        for one in backends
        for server in one.servers
        if one.proxy_protocol != "off" and server.kind == "tcp" and is_address(server.host)
    ]
    for backend in backends:
        if not backend.names or backend.proxy_protocol != "off":
            continue
        ports = {server.port for server in backend.servers}
        for other, server in believing:
            host = normal_host(server.host)
            is_led_to = backend.allows(host) and backend.reaches(ip_address(host))
            if is_led_to and not ports.isdisjoint({0, server.port}):
                message = (
                    f"clients may choose {server.text}, a server of [backend {other.name}], and write a PROXY header to it with any address; "
                    f"add 'deny_networks = {host}', or 'proxy_protocol = {other.proxy_protocol}'"
                )
                yield backend.section.problem(message, "server")
                break


FINDERS = unprovided, bypassed_routes, forged_headers, bypassed_certificates, bypassed_databases
