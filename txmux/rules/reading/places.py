"""The keys of ``[listen NAME]`` and ``[route NAME]``: who may come in, how it is told apart, and where it is led."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.rules.model import NetworkSet, Senders
from txmux.rules.reading import endpoints, values
from txmux.rules.reading.during import period
from txmux.rules.reading.key import Key
from txmux.rules.reading.senders import read_sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from txmux.rules.model import Alternative, IPNetwork, Outcome

__all__ = ["listener_keys", "route_keys"]

_CONNECTIONS = values.whole_number(0, 1_000_000_000)


def listener_keys(
    outcome: Callable[[str], Outcome], networks: Callable[[str], IPNetwork | NetworkSet]
) -> dict[str, Key]:
    """Give the keys of ``[listen NAME]``.

    Args:
        outcome: Reads where a client is led.
        networks: Reads a network, or the file of some.
    """
    some = _of_networks(networks)
    return {
        "endpoint": Key("endpoints", endpoints.listening, ":443", "lines", required=True),
        "detect_timeout": Key("detect_timeout", values.positive_duration, "5s"),
        "peek_limit": Key("peek_limit", values.size(1, 1024**2), "32KiB"),
        "silent": Key("silent", outcome, "close"),
        "default": Key("default", outcome, "close"),
        "accept_proxy_from": Key(
            "accept_proxy_from", read_sender(networks), "10.0.0.1", "list", Senders
        ),
        "proxy_timeout": Key("proxy_timeout", values.positive_duration, "3s"),
        "allow": attrs.evolve(some, field="allow"),
        "deny": attrs.evolve(some, field="deny"),
        "max_connections": Key("max_connections", _CONNECTIONS, "10000"),
        "max_connections_per_source": Key("max_connections_per_source", _CONNECTIONS, "100"),
        "max_undecided_per_source": Key("max_undecided_per_source", _CONNECTIONS, "20"),
        "connection_rate_per_source": Key(
            "connection_rate_per_source", values.connection_rate, "20/s burst=40"
        ),
        "backlog": Key("backlog", values.whole_number(1, 65535), "1024"),
        "keepalive": Key("keepalive", values.boolean, "yes"),
    }


def route_keys(
    alternative: Callable[[str], Alternative],
    outcome: Callable[[str], Outcome],
    place: Callable[[str], str],
    networks: Callable[[str], IPNetwork | NetworkSet],
    pem: Callable[[str], Path],
) -> dict[str, Key]:
    """Give the keys of ``[route NAME]``.

    Args:
        alternative: Reads one line of ``match``.
        outcome: Reads where a client is led.
        place: Reads the name of a listener, or of a route that ends TLS.
        networks: Reads a network, or the file of some.
        pem: Reads the path of a file of certificates or keys.
    """
    some = _of_networks(networks)
    return {
        "match": Key("alternatives", alternative, "ssh", "lines", required=True),
        "backend": Key("outcome", outcome, "127.0.0.1:22", required=True, unless="terminate_tls"),
        "from": attrs.evolve(some, field="allowed"),
        "not_from": attrs.evolve(some, field="excluded"),
        "during": Key("during", period, "mon-fri 08:00-18:00", "lines"),
        "under": Key("under", place, "public", "list"),
        "terminate_tls": Key("terminate_tls", pem, "cert.pem, key.pem", "list"),
        "alpn": Key("alpn", values.protocol_name, "h2, http/1.1", "list"),
        "tls_client_ca": Key("tls_client_ca", pem, "clients-ca.pem"),
        "tls_minimum": Key("tls_minimum", values.choice("1.2", "1.3"), "1.3"),
        "log": Key("log", values.boolean, "yes"),
        "dry_run": Key("dry_run", values.boolean, "no"),
    }


def _of_networks(read: Callable[[str], Any]) -> Key:
    return Key("", read, "10.0.0.0/8", "list", _together)


def _together(networks: Iterable[IPNetwork | NetworkSet]) -> NetworkSet:
    found = tuple(networks)
    # A file that several keys name is kept once.
    if len(found) == 1 and isinstance(found[0], NetworkSet):
        return found[0]
    return NetworkSet(found)
