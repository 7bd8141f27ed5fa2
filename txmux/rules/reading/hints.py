"""Words of sslh, HAProxy and nginx that operators write by habit, and what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_CONVERT = "'txmux convert FILE > rules.ini' writes it as rules"
_HEADERS = "write sections such as [listen public], and under them lines such as 'endpoint = :443'"

_KINDS = (
    (
        re.compile(r"^\s*(?:stream|http|events|upstream\s+\S+|server)\s*\{", re.MULTILINE),
        "a configuration of nginx",
        _CONVERT,
    ),
    (
        re.compile(r"^\s*(?:listen|protocols)\s*[:=]\s*(?:\(|$)(?=[^-]*[({])", re.MULTILINE),
        "a configuration of sslh",
        _CONVERT,
    ),
    (
        re.compile(
            r"^(?:global|defaults|(?:frontend|backend|listen)\s+[\w.-]+)\s*(?:#.*)?$", re.MULTILINE
        ),
        "a configuration of HAProxy",
        _CONVERT,
    ),
    (re.compile(r"\A\s*\{"), "JSON", _HEADERS),
    (re.compile(r"^[\w-]+:\s*$", re.MULTILINE), "YAML", _HEADERS),
)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)
_COMMENTS = re.compile(r"^\s*[#;].*$", re.MULTILINE)


def foreign_format(text: str) -> str:
    """Return what a file without a section is, and what to do with it; empty if that is not known."""
    if _SECTION.search(text):
        return ""
    plain = _COMMENTS.sub("", text)
    for pattern, what, advice in _KINDS:
        if pattern.search(plain):
            return f"this is {what}, not a rules file; {advice}"
    return ""


_LISTEN = "endpoint = :443"
_CLOCK = "connect_timeout, idle_timeout and max_duration say what it means"
_HERE = "'terminate_tls = CERTIFICATE.pem, KEY.pem' in a [route]"

KEY_HINTS: Mapping[str, Mapping[str, str]] = {
    "txmux": {
        "chroot": "remove it; 'user' takes the privilege from the service",
        "daemon": "remove it; systemd or another supervisor runs txmux in the background",
        "foreground": "remove it; txmux always runs in the foreground",
        "inetd": "remove it; a socket of systemd is 'endpoint = systemd:domain=INET:index=0' in [listen NAME]",
        "log": "write 'access_log = FILE'",
        "logfile": "write 'access_log = FILE'",
        "loglevel": "remove it; the option is --log-level",
        "maxconn": "write max_connections",
        "mode": "remove it; a [listen] with 'endpoint = udp:PORT' is for UDP, any other for TCP",
        "nbproc": "write workers",
        "nbthread": "write workers",
        "pidfile": "remove it; the option is --pidfile",
        "processes": "write workers",
        "threads": "write workers",
        "timeout": "write 'detect_timeout' in [listen NAME] for recognising clients",
        "transparent": "write 'source = client' in a [backend NAME]",
        "verbose": "remove it; the option is --log-level",
        "worker_processes": "write workers",
    },
    "listen": {
        "accept_proxy": "write 'accept_proxy_from = NETWORKS'",
        "address": f"write '{_LISTEN}'",
        "bind": f"write '{_LISTEN}'",
        "certificate": f"TLS is ended by {_HERE}",
        "default_backend": "write 'default'",
        "fallback": "write 'default'",
        "host": f"write '{_LISTEN}'",
        "is_udp": "write 'endpoint = udp:PORT'",
        "listen": f"write '{_LISTEN}'",
        "maxconn": "write max_connections",
        "mode": "remove it; a [listen] with 'endpoint = udp:PORT' is for UDP, any other for TCP",
        "on_timeout": "write 'silent'",
        "on-timeout": "write 'silent'",
        "port": f"write '{_LISTEN}'",
        "protocol": "write a [route NAME] with 'match = PROTOCOL'",
        "proxy_pass": "write 'default' for all clients, or 'backend' in a [route NAME]",
        "proxy_protocol": "write 'accept_proxy_from = NETWORKS'",
        "route": "a route names its listeners: 'under' in [route NAME]; without it, it belongs to all",
        "routes": "a route names its listeners: 'under' in [route NAME]; without it, it belongs to all",
        "ssl": f"TLS is ended by {_HERE}",
        "ssl_certificate": f"TLS is ended by {_HERE}",
        "timeout": "write 'detect_timeout'",
        "udp": "write 'endpoint = udp:PORT'",
    },
    "route": {
        "acl": "write the condition as 'match', such as 'match = tls sni=www.example.com'",
        "certificate": "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'",
        "default": "'default' is of a [listen NAME]",
        "host": "write it as an option of the matcher: 'match = http host=www.example.com'",
        "listen": "write 'under = NAME'",
        "listener": "write 'under = NAME'",
        "name": "the name is in the header, [route NAME]",
        "path": "write it as an option of the matcher: 'match = http path=/api/*'",
        "protocol": "write 'match'",
        "proxy_pass": "write 'backend'",
        "sni": "write it as an option of the matcher: 'match = tls sni=www.example.com'",
        "sni_hostnames": "write it as an option of the matcher: 'match = tls sni=www.example.com'",
        "src": "write 'from = NETWORKS'",
        "ssl_certificate": "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'",
        "target": "write 'backend'",
        "tls": "write 'match = tls', and 'terminate_tls = CERTIFICATE.pem, KEY.pem' if it ends here",
        "tls_cert": "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'",
        "tls_certificate": "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'",
        "to": "write 'backend'",
        "type": "write 'match'",
        "use_backend": "write 'backend', and the condition as 'match'",
    },
    "backend": {
        "address": "write 'server = HOST:PORT'",
        "host": "write 'server = HOST:PORT'",
        "maxconn": "write max_connections",
        "mode": "remove it; a [listen] with 'endpoint = udp:PORT' is for UDP, any other for TCP",
        "option": "write for example 'check = http path=/health'",
        "proxy_responses": "write answers",
        "proxy_timeout": "write idle_timeout",
        "port": "write 'server = HOST:PORT'",
        "proxy_ssl": "write 'tls = yes'",
        "send_proxy": "write 'proxy_protocol = v1'",
        "ssl": "write 'tls = yes'",
        "timeout": _CLOCK,
        "udp_timeout": "write idle_timeout",
        "tls_verify": "remove it; the name in the certificate is always verified, 'tls_ca = FILE' names an authority",
        "url": "write 'server = HOST:PORT'",
        "verify": "remove it; the name in the certificate is always verified, 'tls_ca = FILE' names an authority",
    },
}
"""By kind of section and unknown key: what to do."""

_STANDS_FOR = {
    "listen": {"endpoint": {"address", "bind", "host", "listen", "port"}},
    "route": {
        "match": {"acl", "host", "path", "protocol", "sni", "sni_hostnames", "tls", "type"},
        "backend": {"proxy_pass", "target", "to", "use_backend"},
    },
    "backend": {"server": {"address", "host", "port", "url"}},
}

SECTION_ALIASES = {
    "bind": "listen",
    "frontend": "listen",
    "global": "txmux",
    "main": "txmux",
    "server": "listen",
    "settings": "txmux",
    "cluster": "backend",
    "pool": "backend",
    "upstream": "backend",
    "acl": "route",
    "location": "route",
    "protocol": "route",
    "rule": "route",
}
"""The kind of section for each of these other words at the beginning of a header."""

_AFTER_SERVERS: Mapping[str, tuple[str, int]] = {
    "check": ("write 'check = tcp' as a key", 0),
    "fall": ("write 'check = tcp fall=3' as a key", 1),
    "inter": ("write 'check = tcp interval=2s' as a key", 1),
    "max_fails": ("write 'eject = failures=3 within=10s for=10s' as a key", 0),
    "maxconn": ("write max_connections=NUMBER", 1),
    "port": ("write 'check = tcp port=NUMBER' as a key", 1),
    "rise": ("write 'check = tcp rise=2' as a key", 1),
    "send-proxy": ("write 'proxy_protocol = v1' as a key", 0),
    "send-proxy-v2": ("write 'proxy_protocol = v2' as a key", 0),
    "sni": ("write 'tls_name = NAME' as a key", 1),
    "ssl": ("write 'tls = yes' as a key", 0),
    "verify": ("remove it: the name is always verified; 'tls_ca = FILE' names an authority", 1),
}
_AFTER_ENDPOINTS = {
    "accept-proxy": "write 'accept_proxy_from = NETWORKS' as a key",
    "proxy_protocol": "write 'accept_proxy_from = NETWORKS' as a key",
    "crt": f"TLS is ended by {_HERE}",
    "ssl": f"TLS is ended by {_HERE}",
    "udp": "for UDP write udp:PORT",
}

REFUSAL_WORDS = frozenset(
    {"deny", "drop", "refuse", "block", "none", "null", "timeout", "blackhole"}
)
"""Words of other programs for refusing clients."""

_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>[^/:\[\]]*|\[[^\]/]*\])(?::(?P<port>[0-9]+))?(?:/.*)?"
)
_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ssh": "22"}
_TLS = frozenset({"https", "wss", "tls", "ssl"})


def stands_for(kind: str, key: str) -> Iterator[str]:
    """Yield the keys that an unknown one of a section stands for, so that they are not missed, too."""
    for right, others in _STANDS_FOR.get(kind, {}).items():
        if key in others:
            yield right


def strays_after_server(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield words after a server that belong to another program, each with what to do, and all others without."""
    skip = 0
    before = ""
    for word in words:
        if skip:
            skip -= 1
            continue
        hint, skip = _AFTER_SERVERS.get(word, ("", 0))
        if before in {"weight", "max_connections"} and word.isdecimal():
            hint = f"write {before}={word}"
        yield word, hint
        before = word


def stray_after_endpoint(words: Sequence[str]) -> str:
    hints = (_AFTER_ENDPOINTS[word] for word in words if word in _AFTER_ENDPOINTS)
    return next(hints, "write one endpoint a line, and nothing after it")


def without_scheme(text: str) -> tuple[str, bool] | None:
    """Return host and port of a URL, and whether it is one of TLS; ``None`` if the text is no URL of a host."""
    found = _URL.fullmatch(text)
    if found is None or not found["host"]:
        return None
    port = found["port"] or _PORTS.get(found["scheme"], "PORT")
    return f"{found['host']}:{port}", found["scheme"] in _TLS
