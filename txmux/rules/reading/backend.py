"""The section ``[backend NAME]``: its servers, which of them is chosen, and how they are reached."""

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from txmux.interfaces import Transport
from txmux.rules.advice.words import near
from txmux.rules.model import (
    LOCAL,
    AllowedNames,
    Backend,
    Handover,
    Listener,
    Outcome,
    Resolve,
    Route,
    Section,
    Server,
    ServerTLS,
)
from txmux.rules.model.backend import backends_of, split_source
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import endpoints, values
from txmux.rules.reading.checks import check, ejection, ejection_text
from txmux.rules.reading.conflicts import comes_to
from txmux.rules.reading.context import OUTCOME, PEM, PEMS, REACHABLE, RESOLVERS, RulesReading
from txmux.rules.reading.endpointstrings import CLIENT, host_name, link_scope
from txmux.rules.reading.scope import Scope, cure
from txmux.rules.reading.values import (
    BOOLEAN,
    CONNECTIONS,
    DURATION,
    LINUX_ONLY,
    PROTOCOLS,
    KeyFiles,
    SectionKey,
    ValueKind,
    duration_text,
    number,
    positive_duration_or_none,
    read_options,
    split_words,
    with_defaults,
    words,
)
from txmux.transport import is_address
from txmux.wire.globs import Globs, host_beginnings, hosts

_PORTS_END = 1 << 16
_FIRST_UNPRIVILEGED_PORT = 1024
_CHOSEN_NAMES, _CHOSEN_NETWORKS = ("allow_names", "deny_names"), ("allow_networks", "deny_networks")
_BETWEEN_NAMES = re.compile(r",(?![^\[({]*[\])}])")  # but not within what an expression repeats
TLS_FIELDS = {
    "tls_name": "name",
    "tls_ca": "ca",
    "tls_client_certificate": "certificate",
    "alpn": "alpn",
}
"""The attributes of `ServerTLS`, by their keys."""


def allowed_names(text: str) -> tuple[str, ...]:
    """Split one line of ``allow_names`` or ``deny_names``: globs and expressions, with commas between them."""
    items = tuple(item.strip() for item in _BETWEEN_NAMES.split(text))
    _patterns(items)
    return items


def _patterns(items: Iterable[str]) -> tuple[Globs, ...]:
    try:
        globs = ",".join(item for item in items if not item.startswith("~"))
        return (
            *([hosts(globs)] if globs else []),
            # Elsewhere an expression is about a whole name; here its anchors say so.
            *(
                host_beginnings(item[2:])
                if item.startswith("~^") and not item.endswith("$")
                else hosts(item)
                for item in items
                if item.startswith("~")
            ),
        )
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _as_allowed_names(lines: Iterable[tuple[str, ...]]) -> AllowedNames:
    items = tuple(item for line in lines for item in line)
    return AllowedNames(", ".join(items), _patterns(items))


def make_backend(name: str, section: Section, found: Mapping[str, Any]) -> Backend:
    fields = {"servers": (), **found}
    tls = {field: fields.pop(key) for key, field in TLS_FIELDS.items() if key in fields}
    tls["may_lack"] = fields.pop("is_of_unit", False)
    fields["tls"] = ServerTLS(**tls) if fields.get("tls") else None
    return Backend(name, section=section, **fields)


def not_allowed(
    listeners: Sequence[Listener], routes: Sequence[Route], owners: Mapping[int, str], scope: Scope
) -> Iterator[Problem]:
    """Find backends of other users by whose names they would get clients of the operator, of listeners that do not allow their routes."""
    if not scope.of_others:
        return
    own = [its for its in listeners if not its.is_of_unit]
    ends = {end.name: end for end in routes if end.is_outer}
    leading: list[tuple[Listener | Route, Sequence[Outcome | None]]] = [
        *((its, its.outcomes) for its in own),
        *((its, [its.outcome]) for its in routes if id(its.section) not in owners),
    ]
    reported: set[tuple[int, str]] = set()  # thousands of routes may lead to one
    for one, outcomes in leading:
        for led in backends_of(outcomes):
            unit = owners.get(id(led.section), "")
            if unit not in scope.of_others:
                continue
            allowing = {*scope.open_to(unit)}
            others = (its for its in own if its.name not in allowing)
            if isinstance(one, Listener):
                named = next((its for its in others if its is one), None)
            else:
                named = next((its for its in others if comes_to(one, its, ends)), None)
            if named is None or (id(led), named.name) in reported:
                continue
            reported.add((id(led), named.name))
            where, too = f"from [listen {named.name}], which", ""
            if named is one:
                is_forward = not (one.silent or any(its.stands_under(one) for its in routes))
                # Else it would wait for its clients' first bytes from then on.
                too = " with 'first = server'" * (is_forward and one.transport is Transport.TCP)
                where = "and"
            why = f"[{one.section.header}] leads to it {where} takes no routes of this file"
            cured = f"{cure(unit, 'its owner')}{too}, or call it otherwise"
            yield led.section.problem(f"{why}; {cured}")


def contradictions(
    section: Section, found: Mapping[str, Any], read: Callable[[str], Server]
) -> Iterator[Problem]:
    """Find values that are right by themselves, but not together; those that could not be read are reported already. `read` reads a server."""
    messages = [
        *_tls(section, found),
        *_tlvs(section, found),
        *_sources(found),
        *_of_check(found),
        *_of_eject(section, found),
    ]
    if isinstance(found.get("fallback"), Handover):
        message = "the client's bytes have been read by then, and cannot be put back into its socket; name a server"
        messages.append(("fallback", message))
    messages += _of_clients(section, found)
    yield from (section.problem(message, key) for key, message in messages)
    for line, item in enumerate(section.items("server")):
        for message in _of_server(item.text, found, read):
            yield section.problem(message, "server", line)


def _tls(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what would wrongly make its reader believe that there is TLS."""
    if found.get("tls") or ("tls" in section.entries and "tls" not in found):
        return
    for key in TLS_FIELDS:
        if key in section.entries:
            yield key, "has no effect without 'tls = yes'; add that, or remove this"


def _of_check(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    server_check = found.get("check")
    if server_check is None:
        return
    is_udp = any(server.kind == "udp" for server in found.get("servers", ()))
    if is_udp and server_check.kind not in {"expect=", "dns"} and not server_check.port:
        message = f"{server_check.kind} works only over TCP; add the 'port=' of a service beside it, or write send= and expect=, or dns name="
        yield "check", message
    if server_check.kind == "dns" and not is_udp:
        yield "check", "dns is for servers of UDP, udp:HOST:PORT; write tcp for these"
    elif server_check.kind == "dns" and server_check.port:
        yield "check", "dns asks a server at its own port; remove 'port='"
    for server in found.get("servers", ()):
        if server_check.port and server.kind in {"unix", "endpoint"}:
            advice = "remove 'port=', or write it as HOST:PORT"
            yield "check", f"{server.text!r} has no other port; {advice}"
    if server_check.sni and found.get("tls"):
        sni = f"sni={server_check.sni}"
        message = f"{sni!r} is for servers that are not spoken to by TLS; write 'tls_name = {server_check.sni}' as a key instead"
        yield "check", message


def _of_eject(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    is_udp = any(server.kind == "udp" for server in found.get("servers", ()))
    if is_udp and any("after=" in item.text for item in section.items("eject")):
        yield "eject", "after= works only over TCP; a flow is unanswered after 'unanswered_timeout'"


def _of_clients(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find settings that do not work with servers whose address differs from client to client."""
    servers = found.get("servers", ())
    ours = [server for server in servers if server.depends_on_client]
    is_named = any(server.placeholder for server in ours)
    if is_named and "allow_names" not in section.entries:
        message = (
            "clients choose where this leads; add the names that they may choose, such as "
            "'allow_names = *.example.com'"
        )
        yield "server", message
    names, networks = dict.fromkeys(_CHOSEN_NAMES, is_named), dict.fromkeys(_CHOSEN_NETWORKS, ours)
    for key, has_use in (names | networks).items():
        if servers and key in section.entries and not has_use:
            example = "{sni}:443" if key in names else "{sni}:443 or {local}:443"
            yield key, f"has no effect without a server such as {example}; add one, or remove this"
    if not ours:
        return
    each = f"{ours[0].text!r} is another server for each client"
    if len(ours) < len(servers):
        yield "server", f"{each}; put it into a [backend] of its own"
    for key in ("check", "eject"):
        if key in section.entries and found.get(key) is not None:
            message = f"{each}, and what is found out about one says nothing of others; remove this"
            yield key, message
    if found.get("hold"):
        message = f"{each}, and those of others would wait for it, too; remove this"
        yield "hold", message
    if "resolve" in section.entries:
        yield "resolve", f"{each}, whose name is known as long as its TTL says; remove this"


def _tlvs(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    chosen = found.get("proxy_tlvs", ())
    for text in dict.fromkeys(chosen):
        if chosen.count(text) > 1:
            yield "proxy_tlvs", f"{text!r} is given twice; keep one"
    unread = "proxy_protocol" in section.entries and "proxy_protocol" not in found
    if chosen and found.get("proxy_protocol") != "v2" and not unread:
        yield "proxy_tlvs", "needs 'proxy_protocol = v2'; write that, or remove this"


def _sources(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    source = found.get("source", ())
    for text in dict.fromkeys(source):
        if source.count(text) > 1:
            yield "source", f"{text!r} is given twice; keep one"
    if "client" in source and set(source) != {"client"}:
        yield "source", "client cannot be combined with addresses; keep one or the other"
    of_backend = Backend("", found.get("servers", ()), more=found.get("more", {}))
    for server in of_backend.dialled if source else ():
        why = _not_from(source, server)
        if why:
            yield "source", f"{server.text!r} {why}, or put that server into a [backend] of its own"


def _not_from(source: Sequence[str], server: Server) -> str:
    if server.kind == "unix":
        return "is a UNIX socket, which needs no local address; remove this"
    if server.kind == "endpoint":
        return "is opened by Twisted, which does not support this; write it as HOST:PORT"
    if "client" in source or not is_address(server.host):
        return ""
    version, *others = (
        ipaddress.ip_address(text).version
        for text in (server.host, *(split_source(text)[0] for text in source))
    )
    return "" if version in others else f"is IPv{version}, but no address here is; add one"


def _of_server(text: str, found: Mapping[str, Any], read: Callable[[str], Server]) -> Iterator[str]:
    if found.get("proxy_protocol", "off") != "off" and (why := endpoints.no_proxy_protocol(text)):
        yield why
    if not found.get("tls"):
        return
    try:
        server = read(text)
    except InvalidValueError:
        return
    kind = server.text.partition(":")[0].lower()
    if server.kind == "endpoint" and kind in {"ssl", "tls"}:
        yield f"{server.text!r} speaks TLS by itself; write it as HOST:PORT, or remove 'tls = yes'"
    elif "tls_name" not in found and (
        server.query or server.kind in {"unix", "endpoint"} or server.host == LOCAL
    ):
        yield f"{server.text!r} has no name to verify the certificate for; add tls_name = NAME"


def _source(reading: RulesReading, text: str) -> str:
    """Read an address to connect from, or the word ``client``."""
    if text == "client":
        return text
    address, ports = split_source(text)
    if ports is not None and not (ports and 0 < ports[0] <= ports[-1] < _PORTS_END):
        raise InvalidValueError(
            f"{text!r} has no valid ports; write them as in {text.rpartition(':')[0]}:40000-50000"
        )
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise InvalidValueError(
            f"{text!r} is not an IP address; write 'client' for the client's own, or one of this machine's"
        ).ask(near, text, ("client",)) from None
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        raise InvalidValueError(f"{text!r} is IPv4 inside IPv6; write '{mapped}'")
    if "%" in text or link_scope(text) or ip.is_unspecified or ip.is_multicast:
        message = f"{text!r} is not an address to connect from; write one of this machine's, such as 192.0.2.1"
        raise InvalidValueError(message)
    if ports is None:
        return str(ip)
    if ports[0] < _FIRST_UNPRIVILEGED_PORT:
        reading.refuse_others(f"{text!r}, with a port below {_FIRST_UNPRIVILEGED_PORT}")
    last = f"-{ports[-1]}" if len(ports) > 1 else ""
    return f"{f'[{ip}]' if ip.version == 6 else ip}:{ports[0]}{last}"


def _resolve(text: str) -> Resolve:
    """Read how names are looked up again: ``DURATION [keep=DURATION|none]``."""
    interval, *rest = split_words(text) or [""]
    options = read_options(rest, {"keep": positive_duration_or_none}, of="resolve")
    keep = options.get("keep", Resolve().keep)
    seconds = 0 if interval == "0" else values.duration(interval, values.SECONDS_FORMS)
    if seconds < 1:
        message = "must be at least 1s; name servers should not be queried more often"
        raise InvalidValueError(message)
    return Resolve(seconds, math.inf if keep is None else keep)


_FIELDS = words("authority", "alpn", "unique-id", "crc32c", "ssl")


def _modules_of(servers: Iterable[Server]) -> Iterator[str]:
    if any(server.depends_on_client for server in servers):
        yield from (f"txmux.backends.names.{name}" for name in ("addresses", "lookup", "question"))
    if any(server.text.startswith("tls:") for server in servers):
        yield "txmux.net.tls.verification"


_SERVER = ValueKind(
    RulesReading.server,
    "one a line",
    "lines",
    in_context=True,
    paths=lambda servers: [
        path for one in servers for path in endpoints.files_of(CLIENT, one.text).values()
    ],
)
_TLVS = ValueKind(_FIELDS.read, f"list of {_FIELDS.shape}", "list")
_SOURCE = ValueKind(
    _source,
    "list of addresses, each with an optional range of ports, or `client`",
    "list",
    in_context=True,
)
_MAX_DURATION = ValueKind(values.positive_duration_or_none, "duration or `none`")
_CHECK = ValueKind(check, "[check](#checks)")
_EJECT = ValueKind(
    ejection,
    "`failures=` `within=` `for=` `unanswered=` `after=` in any order, or `off`",
    write=ejection_text,
)
_RESOLVE = ValueKind(
    _resolve,
    "duration, at least `1s`, and `keep=` a duration or `none`",
    write=lambda one: f"{duration_text(one.interval)} keep={duration_text(one.keep)}",
)
_SLOW_START = ValueKind(values.duration, "duration or `0s`")
_NAMES = ValueKind(
    allowed_names, "list of patterns", "lines", _as_allowed_names, write=lambda it: it and it.text
)
_TLS_NAME = ValueKind(host_name, "host name or address")
_RATE = ValueKind(values.rate, "rate", write=values.rate_text)
_HOLD = ValueKind(values.duration, "duration, `0s` for none")

# fmt: off
KEYS: Mapping[str, SectionKey] = with_defaults(Backend("", ()), {
    "server": SectionKey(_SERVER, example="127.0.0.1:22", field="servers", required=True, files=KeyFiles("worker-itself", is_secret=True), loads=_modules_of, meaning=
        "txmux connects [here](#servers)"),
    "allow_names": SectionKey(_NAMES, example="*.example.com", meaning=
        "[clients may choose](#destinations-by-name) these names; `*` is all. Required with `{sni}` and `{host}`"),
    "allow_networks": SectionKey(REACHABLE, example="public", meaning=
        "[clients may choose](#destinations-by-name) addresses in these networks. By default, `public` for `{sni}` and `{host}`, anywhere for others"),
    "deny_names": SectionKey(_NAMES, example="*.internal.example.com", meaning=
        "clients may not choose these, even if `allow_names` has them. Other names may lead to the same address"),
    "deny_networks": SectionKey(REACHABLE, example="192.0.2.0/28", meaning=
        "clients may not choose addresses in these networks, even if `allow_networks` has them"),
    "balance": SectionKey(words("round-robin", "least-connections", "random", "source-hash", "sni-hash", "host-hash", "first"), example="least-connections", meaning=
        "a client gets [one of several servers](#balance) by this rule"),
    "slow_start": SectionKey(_SLOW_START, example="30s", meaning=
        "the share of a server that came up or is new [grows for this time](#slow-start)"),
    "proxy_protocol": SectionKey(words("off", "v1", "v2"), example="v2", meaning=
        "a PROXY protocol header of this version, with the client's address, comes first, before TLS. The server [must expect it](../how-to/real-client-address.md). `tls:HOST:PORT` cannot have it"),
    "proxy_tlvs": SectionKey(_TLVS, example="authority, unique-id", streams_only="works only over TCP; remove it", meaning=
        "a header of version 2 has [these fields](#fields-of-the-proxy-protocol-header) besides the addresses"),
    "source": SectionKey(_SOURCE, example="192.0.2.1", meaning=
        "connections come from these local addresses in turn, of the server's family; `client` is the client's own. Only for servers with an address"),
    "mptcp": SectionKey(LINUX_ONLY, streams_only="works only over TCP; remove it", meaning=
        "txmux connects by [Multipath TCP](#multipath-tcp) to servers that have it, on Linux only"),
    "connect_timeout": SectionKey(DURATION, streams_only="works only over TCP; write unanswered_timeout", meaning=
        "an attempt to connect may take this long, with the TLS handshake; before it, a client may wait in the `queue` as long"),
    "retries": SectionKey(number(0, 1000), meaning=
        "this many others are tried when a server cannot be reached"),
    "idle_timeout": SectionKey(DURATION, meaning=
        "the connection is closed when neither side has sent a byte for this long, or for a minute once one has finished sending. A slow peer that reads is not idle"),
    "max_duration": SectionKey(_MAX_DURATION, default="none", example="1d", streams_only="works only over TCP; remove it", meaning=
        "the connection ends after this time"),
    "check": SectionKey(_CHECK, example="http path=/health", meaning=
        "this tests each server's health at regular intervals"),
    "end_on_down": SectionKey(words("no", "yes", "backup"), example="yes", meaning=
        "with `yes`, connections to a server end when its checks say *down*; with `backup` also those to `backup` servers when another is up again"),
    "eject": SectionKey(_EJECT, meaning=
        "after this many failed connections to a server `within` this time, or in a row, it gets none `for` [this time](#when-servers-fail). `unanswered=5` does the same after five clients in a row, of at least three sources, that have sent something and had no byte `after` `15s`; for UDP, after five unanswered flows. `unanswered=0` is for servers that never answer, as of logs: they are never [silent](#what-connections-say)"),
    "resolve": SectionKey(_RESOLVE, meaning=
        "a host name is looked up, or Consul asked, again within this time; addresses not found again are used for as long as `keep` says"),
    "resolvers": SectionKey(RESOLVERS, example="127.0.0.1:8600", meaning=
        "these [name servers](#how-names-are-looked-up) are asked, in this order; by default those of `[txmux]`"),
    "tls": SectionKey(BOOLEAN, default="no", example="yes", streams_only="works only over TCP; remove it", loads=lambda _: ("txmux.backends.connect.tls",), meaning=
        "with `yes`, connections to the servers use TLS; their certificates' name is verified. A server that closes first, without a close-notify, [counts as broken off](access-log.md#reasons)"),
    "tls_name": SectionKey(_TLS_NAME, example="www.example.com", meaning=
        "this name is verified, and sent as SNI; by default the server's host. UNIX sockets and endpoint strings need it"),
    "tls_ca": SectionKey(PEM, example="ca.pem", files=KeyFiles("sent"), meaning=
        "the certificates in this PEM file are trusted, instead of the system's"),
    "tls_client_certificate": SectionKey(PEMS, example="client.pem", files=KeyFiles("sent", is_secret=True), meaning=
        "these PEM files have the certificate chain and key for the server"),
    "alpn": SectionKey(PROTOCOLS, example="h2, http/1.1", streams_only="works only over TCP; remove it", meaning=
        "txmux offers these protocols to the server by ALPN"),
    "max_connections": SectionKey(CONNECTIONS, example="1000", meaning=
        "all servers together have at most this many connections, `0` for no limit"),
    "queue": SectionKey(CONNECTIONS, example="100", streams_only="works only over TCP: datagrams do not wait; remove it", meaning=
        "this many further clients wait for room under `max_connections`, here or of the servers, in the order in which they came. One that waits for a full server does not delay those that can use another"),
    "hold": SectionKey(_HOLD, default="0s", example="60s", meaning=
        "clients [wait](#clients-that-wait-for-a-server) for this long while no server is up"),
    "hold_limit": SectionKey(number(1, 1_000_000), meaning=
        "at most this many clients wait for a server"),
    "upload_rate": SectionKey(_RATE, example="10MiB/s", streams_only="works only over TCP; remove it", meaning=
        "one client can send at most this many bytes per second"),
    "download_rate": SectionKey(_RATE, example="10MiB/s", streams_only="works only over TCP; remove it", meaning=
        "one client can receive at most this many bytes per second"),
    "unanswered_timeout": SectionKey(DURATION, datagrams_only=True, meaning=
        "a flow of UDP that the server has never answered lasts this long"),
    "answers": SectionKey(number(0, 1_000_000_000), example="1", datagrams_only=True, meaning=
        "a flow of UDP ends after this many datagrams from the server, unless the client has sent more; `0`: no such end. Use `1` for DNS"),
    "fallback": SectionKey(OUTCOME, meaning=
        "the client goes here when no server can be reached. A fallback can have one too, but not in a circle"),
})
# fmt: on
"""The keys of ``[backend NAME]``."""
