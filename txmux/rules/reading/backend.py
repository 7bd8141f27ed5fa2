"""The keys of ``[backend NAME]``: its servers, which of them is chosen, and how they are reached."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from txmux.rules.model import Ejection
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading import endpoints, values
from txmux.rules.reading.checks import check
from txmux.rules.reading.endpointstrings import host_name
from txmux.rules.reading.key import Key
from txmux.rules.reading.options import read_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from txmux.rules.model import Outcome

__all__ = ["backend_keys"]

_CONNECTIONS = values.whole_number(0, 1_000_000_000)


def backend_keys(path: Callable[[str], Path], fallback: Callable[[str], Outcome]) -> dict[str, Key]:
    """Give the keys of ``[backend NAME]``.

    Args:
        path: Reads the path of a file.
        fallback: Reads where a client is led when no server can be reached.
    """
    duration, count = values.positive_duration, values.whole_number
    tlv = values.choice("authority", "alpn", "unique-id", "crc32c", "ssl")
    balance = values.choice("round-robin", "least-connections", "random", "source-hash", "first")
    return {
        "server": Key("servers", endpoints.server, "127.0.0.1:22", "lines", required=True),
        "balance": Key("balance", balance, "least-connections"),
        "proxy_protocol": Key("proxy_protocol", values.choice("off", "v1", "v2"), "v2"),
        "proxy_tlvs": Key("proxy_tlvs", tlv, "authority, unique-id", "list"),
        "source": Key("source", _source, "192.0.2.1", "list"),
        "connect_timeout": Key("connect_timeout", duration, "5s"),
        "retries": Key("retries", count(0, 1000), "2"),
        "idle_timeout": Key("idle_timeout", duration, "1h"),
        "half_close_timeout": Key("half_close_timeout", duration, "1m"),
        "max_duration": Key("max_duration", values.positive_duration_or_none, "1d"),
        "check": Key("check", check, "http path=/health"),
        "eject": Key("eject", _ejection, "failures=3 within=10s for=10s"),
        "resolve": Key("resolve", _at_least_a_second, "30s"),
        "tls": Key("tls", values.boolean, "yes"),
        "tls_name": Key("tls_name", host_name, "www.example.com"),
        "tls_ca": Key("tls_ca", path, "ca.pem"),
        "tls_client_certificate": Key("tls_client_certificate", path, "client.pem", "list"),
        "alpn": Key("alpn", values.protocol_name, "h2, http/1.1", "list"),
        "max_connections": Key("max_connections", _CONNECTIONS, "1000"),
        "queue": Key("queue", _CONNECTIONS, "100"),
        "queue_timeout": Key("queue_timeout", duration, "5s"),
        "upload_rate": Key("upload_rate", values.rate, "10MiB/s"),
        "download_rate": Key("download_rate", values.rate, "10MiB/s"),
        "fallback": Key("fallback", fallback, "close"),
    }


def _source(text: str) -> str:
    """Read an address to connect from, or the word ``client``."""
    if text == "client":
        return text
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        hint = did_you_mean(text, ("client",))
        raise InvalidValueError(
            f"{text!r} is no IP address; write one of this machine's, or client for the client's own{hint}"
        ) from None
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None:
        raise InvalidValueError(f"{text!r} is IPv4 inside IPv6; write '{mapped}'")
    if "%" in text or found.is_unspecified or found.is_multicast:
        raise InvalidValueError(
            f"{text!r} is no address to connect from; write one of this machine's, such as 192.0.2.1"
        )
    return str(found)


def _ejection(text: str) -> Ejection | None:
    """Read when a server is taken out; ``None`` is never."""
    words = values.split_words(text)
    if words == ["off"]:
        return None
    if "off" in words:
        raise InvalidValueError("off goes with nothing else; keep it alone, or remove it")
    readers = {
        "failures": values.whole_number(1, 1000),
        "within": values.positive_duration,
        "for": values.positive_duration,
    }
    found = read_options(words, readers, of="eject")
    seconds = found.pop("for", Ejection().seconds)
    return Ejection(**found, seconds=seconds)


def _at_least_a_second(text: str) -> float:
    seconds = values.duration(text)
    if seconds < 1:
        raise InvalidValueError("must be at least 1s; name servers are not to be asked more often")
    return seconds
