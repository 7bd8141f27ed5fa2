"""A ``[backend]`` section as a whole: what its keys make together, and where they contradict each other."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from txmux.rules.model import Backend, ServerTLS
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from txmux.rules.model import Section, Server
    from txmux.rules.problems import Problem

__all__ = ["contradictions", "make_backend"]

_TLS_FIELDS = {
    "tls_name": "name",
    "tls_ca": "ca",
    "tls_client_certificate": "certificate",
    "alpn": "alpn",
}


def make_backend(name: str, section: Section, found: Mapping[str, Any]) -> Backend:
    """Make the backend of a section.

    Args:
        name: Its name.
        section: What stands in the file.
        found: The values that could be read, by the keys' fields.
    """
    fields = {"servers": (), **found}
    tls = {field: fields.pop(key) for key, field in _TLS_FIELDS.items() if key in fields}
    fields["tls"] = ServerTLS(**tls) if fields.get("tls") else None
    return Backend(name, section=section, **fields)


def contradictions(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    """Find values that are right by themselves, but not together.

    Args:
        section: What stands in the file.
        found: The values that could be read, by the keys' fields. Of what could not, nothing is told here.
    """
    messages = [
        *_tls(section, found),
        *_tlvs(section, found),
        *_source(found.get("source", ()), found.get("servers", ())),
        *_check(found),
    ]
    for key, message in messages:
        yield section.problem(message, key)
    servers = section.entries["server"].items if "server" in section.entries else ()
    for number, item in enumerate(servers):
        for message in _of_server(item.text, found):
            yield section.problem(message, "server", number)


def _tls(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what would wrongly make its reader believe that there is TLS."""
    if found.get("tls") or ("tls" in section.entries and "tls" not in found):
        return
    for key in _TLS_FIELDS:
        if key in found:
            yield key, "does nothing without 'tls = yes'; add that, or remove this"


def _check(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    check = found.get("check")
    if check is None:
        return
    for server in found.get("servers", ()):
        if check.port and server.kind in {"unix", "endpoint"}:
            yield (
                "check",
                f"{server.text!r} has no other port; remove 'port=', or write it as HOST:PORT",
            )
    if check.sni and found.get("tls"):
        yield (
            "check",
            "sni= is for servers that are not spoken to by TLS; write tls_name, and remove this",
        )


def _tlvs(section: Section, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    chosen = found.get("proxy_tlvs", ())
    for text in dict.fromkeys(chosen):
        if chosen.count(text) > 1:
            yield "proxy_tlvs", f"{text!r} is given twice; keep one"
    unread = "proxy_protocol" in section.entries and "proxy_protocol" not in found
    if chosen and found.get("proxy_protocol") != "v2" and not unread:
        yield "proxy_tlvs", "needs 'proxy_protocol = v2'; write that, or remove this"


def _source(source: Sequence[str], servers: Iterable[Server]) -> Iterator[tuple[str, str]]:
    for text in dict.fromkeys(source):
        if source.count(text) > 1:
            yield "source", f"{text!r} is given twice; keep one"
    if "client" in source and set(source) != {"client"}:
        yield "source", "client goes with no address beside it; keep the one or the others"
    for server in servers if source else ():
        why = _not_from(source, server)
        if why:
            yield "source", f"{server.text!r} {why}, or put that server into a [backend] of its own"


def _not_from(source: Sequence[str], server: Server) -> str:
    """Tell why a server cannot be reached from a source."""
    if server.kind == "unix":
        return "is a UNIX socket, which is connected to from no address; remove this"
    if server.kind == "endpoint":
        return "is left to Twisted, which knows nothing of this; write it as HOST:PORT"
    version = _version(server.host)
    if "client" in source or version in {0, *map(_version, source)}:
        return ""
    return f"is IPv{version}, but no address here is; add one"


def _version(text: str) -> int:
    """Give the version of an IP address; 0 for a name."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


def _of_server(text: str, found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("proxy_protocol", "off") != "off" and (why := endpoints.no_proxy_protocol(text)):
        yield why
    server = _read(text) if found.get("tls") else None
    if server is None:
        return
    kind = server.text.partition(":")[0].lower()
    if server.kind == "endpoint" and kind in {"ssl", "tls"}:
        yield f"{server.text!r} speaks TLS by itself; write it as HOST:PORT, or remove 'tls = yes'"
    elif server.kind in {"unix", "endpoint"} and "tls_name" not in found:
        yield f"{server.text!r} has no name to verify the certificate for; add tls_name = NAME"


def _read(text: str) -> Server | None:
    try:
        return endpoints.server(text)
    except InvalidValueError:
        return None
