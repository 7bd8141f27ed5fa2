"""The ``stream`` block of an ``nginx.conf``, of nginx 1.9 to 1.29, as rules."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from txmux.rules.reading import values
from txmux_convert.matching import LUA
from txmux_convert.nginx.backends import RESOLVER_TIMEOUT, SETTINGS, Backends
from txmux_convert.nginx.reader import Directive, NginxReader
from txmux_convert.nginx.servers import NginxConversion, ServerBlock, names_port
from txmux_convert.nginx.values import DirectiveScope, duration
from txmux_convert.nginx.variables import Variables
from txmux_convert.routes import RouteWriter
from txmux_convert.terms import InexpressibleError
from txmux_convert.writer import ConvertError, Draft

_STREAMS = frozenset({"stream", "tcp"})
"""``tcp`` is what a module had before nginx had ``stream``."""

_BLOCKS = frozenset({"geo", "limit_conn_zone", "map", "server", "split_clients", "upstream"})
"""What may be in a file that is included in ``stream``."""

_TAKEN = {
    *(*_BLOCKS, *SETTINGS, "allow", "deny", "limit_conn", "limit_conn_dry_run", "access_log off"),
    *("listen", "pass", "preread_buffer_size", "preread_timeout", "proxy_pass", "return", "set"),
    *("proxy_protocol_timeout", "set_real_ip_from", "ssl_alpn", "ssl_certificate"),
    *("ssl_certificate_key", "ssl_client_certificate", "ssl_crl", "ssl_handshake_timeout"),
    *("ssl_preread", "ssl_protocols", "ssl_trusted_certificate", "ssl_verify_client"),
}
"""Directives that rules come from; with its value if it is about that one alone."""

_OF_PROCESS = {"user": ("user", "group"), "worker_processes": ("workers",)}
_OF_MEMORY = ("map_hash", "server_names_hash", "variables_hash")
WITHOUT_EFFECT: Mapping[str, str] = {
    **{
        f"{table}_{size}_size": "the memory of a table; what is found in it is the same"
        for table in _OF_MEMORY
        for size in ("bucket", "max")
    },
    "preread_by_lua_no_postpone": "the order of programs in Lua, each of which is reported",
    "proxy_half_close on": "txmux always does so",
    "proxy_next_upstream_timeout 0": "no limit, as in txmux",
    "proxy_ssl_server_name on": "txmux always sends the name",
    "proxy_ssl_session_reuse on": "whether a session is resumed is not seen by clients",
    "server_name": "chooses among servers at one address, which are reported",
    "ssl_session_cache none": "no session is stored, as in txmux",
    "ssl_session_tickets on": "txmux always gives tickets",
    "tcp_nodelay on": "txmux always does so",
}
"""Directives, some with a value, that have no counterpart and no report, and why they need none."""

_KNOWN = _TAKEN | WITHOUT_EFFECT.keys()
_CIPHERS = "txmux chooses the ciphers"
_TICKETS = "sessions are in tickets, which txmux always gives, and in nothing else"
_WARNED = {
    "proxy_buffer_size": "",
    "proxy_half_close": "when one side has finished, txmux lets the other finish, too, for a minute",
    "proxy_next_upstream_timeout": "connect_timeout is for each attempt, and retries says how many there are",
    "proxy_socket_keepalive": "keepalive of [listen] is for both sides",
    "proxy_ssl_ciphers": _CIPHERS,
    "proxy_ssl_conf_command": "",
    "proxy_ssl_protocols": "TLS 1.2 and 1.3 are spoken",
    "proxy_ssl_server_name": "txmux always sends the name, tls_name",
    "proxy_ssl_session_reuse": "whether a session is resumed, OpenSSL decides",
    "proxy_ssl_verify_depth": "",
    "resolver_timeout": RESOLVER_TIMEOUT,
    "ssl_ciphers": _CIPHERS,
    "ssl_conf_command": _CIPHERS,
    "ssl_dhparam": _CIPHERS,
    "ssl_ecdh_curve": _CIPHERS,
    "ssl_prefer_server_ciphers": _CIPHERS,
    "ssl_session_cache": _TICKETS,
    "ssl_session_tickets": _TICKETS,
    "ssl_session_timeout": _TICKETS,
    "ssl_stapling": "",
    "ssl_verify_depth": "",
    "tcp_nodelay": "",
}
"""Directives that become a comment; any that is in no table becomes a LOOK."""

_ASIDE = {
    "access_log": "access_log in [txmux]",
    "error_log": "",
    "limit_conn_log_level": "",
    "log_by_lua_block": "",
    "log_format": "access_log_format in [txmux]",
    "open_log_file_cache": "",
    "status_zone": "metrics in [txmux]",
}
"""Directives about the log, and their counterparts."""


def convert_nginx(data: bytes, draft: Draft) -> None:
    """Convert an ``nginx.conf``, or a file that it includes in ``stream``."""
    stream = _stream(NginxReader(data, draft), draft)
    variables = Variables(stream, draft.flag)
    zones = {
        d.parameters[1].removeprefix("zone=").partition(":")[0]: d.value
        for d in stream
        if d.name == "limit_conn_zone" and len(d.words) > 2
    }
    routes = RouteWriter(draft)
    made = NginxConversion(
        draft,
        variables,
        Backends(stream, draft, variables),
        zones,
        routes,
        names_port(d for d in stream if d.name != "server"),
    )
    outer = tuple(d for d in stream if d.name not in _BLOCKS)
    _report(outer, draft)
    taken: dict[str, Directive] = {}
    for directive in stream:
        if directive.name == "server":
            block = directive.block or ()
            _report(block, draft)
            own: list[Directive] = []
            for inner in block:
                place = f"{inner.value} {'udp' in inner.parameters}"
                if inner.name != "listen" or taken.setdefault(place, directive) is directive:
                    own.append(inner)
                else:
                    why = (
                        "is left out: the server is chosen by server_name, which has no counterpart"
                    )
                    draft.flag(inner, why)
            if len(own) == len(block) or any(d.name == "listen" for d in own):
                ServerBlock(directive, DirectiveScope(tuple(own), outer), made).convert()
    routes.finish()


def _stream(reader: NginxReader, draft: Draft) -> tuple[Directive, ...]:
    """Return the directives of ``stream``, or of a file that belongs there; report others once."""
    top = reader.expanded(reader.directives, inner=False)
    blocks = [d for d in top if d.name in _STREAMS]
    if not blocks and _BLOCKS.isdisjoint(d.name for d in top):
        raise ConvertError(
            f"{draft.path}: there is no stream block in it, and nothing else of nginx has a counterpart{_absent(reader)}"
        )
    others = [d for d in top if d.name not in _STREAMS]
    stream = [
        inner
        for block in blocks
        for inner in (as_stream if block.name == "tcp" else list)(
            reader.expanded(block.block or ())
        )
    ]
    if not blocks:
        stream, others = list(reader.expanded(top)), []
        for directive in stream:
            if directive.name == "server" and any(
                d.name == "location" for d in directive.block or ()
            ):
                raise ConvertError(
                    f"{draft.path}: there are servers of http in it, and none of stream"
                )
    if not any(d.name == "server" for d in stream):
        raise ConvertError(f"{draft.path}: there is no server in its stream block{_absent(reader)}")
    _process(others, draft)
    others = [d for d in others if d.name not in _OF_PROCESS]
    names = list(dict.fromkeys(d.name for d in others))
    if names:
        draft.notes.append(f"{', '.join(names)}: not about streams, and left out")
    return tuple(stream)


def _absent(reader: NginxReader) -> str:
    """Return the missing files that it includes, for the end of an error."""
    if not reader.unmatched:
        return ""
    return f"; it includes {', '.join(reader.unmatched)}, and there is no such file here"


def _process(directives: Sequence[Directive], draft: Draft) -> None:
    """Write the user of the process, and the number of workers."""
    keys: dict[str, tuple[str, int]] = {}
    for directive in directives:
        usual = directive.value in {"", "root", "1"}
        for key, value in zip(
            _OF_PROCESS.get(directive.name, ()), directive.parameters, strict=False
        ):
            if not usual:
                keys[key] = (value, directive.number)
    if keys:
        section = draft.section("txmux", line=min(line for _, line in keys.values()))
        for key, (value, line) in keys.items():
            section.add(key, value, line)


def _report(directives: Sequence[Directive], draft: Draft) -> None:
    for directive in directives:
        name = directive.name
        if name in _KNOWN or str(directive) in _KNOWN:
            continue
        if name in _ASIDE:
            draft.set_aside(directive, name, _ASIDE[name])
        elif name in _WARNED:
            reason = _WARNED[name]
            draft.warn(directive, f"has no counterpart{reason and f'; {reason}'}")
        else:
            program = f"; {LUA}" if name.startswith("preread_by_lua") else ""
            draft.flag(directive, f"is left out: it has no counterpart{program}")


_IDLE = ("timeout", "proxy_read_timeout", "proxy_send_timeout")
"""Timeouts of ``tcp``; ``stream`` has one for all."""

_USUAL = "60s"
_OTHERWISE = {"proxy_buffer": "proxy_buffer_size"}
_NEEDLESS = frozenset({"check_shm_size", "so_keepalive"})


def as_stream(directives: Iterable[Directive]) -> list[Directive]:
    """Write the directives of a ``tcp`` block as those of ``stream``."""
    given = [_named(d) for d in directives if d.name not in _NEEDLESS]
    outer = {d.name: d for d in given if d.name in _IDLE}
    written: list[Directive] = []
    for directive in given:
        if directive.name == "server":
            inside = [_named(d) for d in directive.block or () if d.name not in _NEEDLESS]
            own = {d.name: d for d in inside if d.name in _IDLE}
            times = [{**outer, **own}.get(name) for name in _IDLE]
            shortest = min((time.value if time else _USUAL for time in times), key=_seconds)
            idle = Directive(("proxy_timeout", shortest), directive.number)
            block = (*(d for d in inside if d.name not in _IDLE), idle)
            written.append(attrs.evolve(directive, block=block))
        elif directive.name not in _IDLE:
            written.append(directive)
    return written


def _named(directive: Directive) -> Directive:
    name = _OTHERWISE.get(directive.name, directive.name)
    return attrs.evolve(directive, words=(name, *directive.parameters))


def _seconds(text: str) -> float:
    try:
        return values.duration(duration(text))
    except InexpressibleError:
        return 0  # so that it is reported
