"""Words of sslh, HAProxy and nginx that operators write by habit, and what to write instead."""

from __future__ import annotations

import re
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
_HERE = "'terminate_tls = CERTIFICATE.pem, KEY.pem' in a [route]"

_TRANSPORT = "remove it; a [listen] with 'endpoint = udp:PORT' is for UDP, any other for TCP"
_ENDS_TLS = "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'"
_BELONGS = "a route names its listeners: 'under' in [route NAME]; without it, it belongs to all"
_VERIFIED = (
    "remove it; the name in the certificate is always verified, 'tls_ca = FILE' names an authority"
)
_BANS = "write 'deny = NETWORKS'; 'txmux ban ADDRESS' keeps a client out for a while"
_RATES = "write 'connection_rate_per_source = 20/s burst=40'"
_IN_A_ROUTE = "write 'from' or 'not_from', or move it to [listen NAME]"
_CHECKS = "write 'check = tcp interval=2s' or 'check = http path=/health'"
_EJECTS = "write 'eject = failures=3 within=10s for=10s'"

KEY_HINTS: Mapping[str, Mapping[str, str]] = {
    "txmux": {
        "chroot": "remove it; 'user' takes the privilege from the service",
        "daemon": "remove it; systemd or another supervisor runs txmux in the background",
        "foreground": "remove it; txmux always runs in the foreground",
        "inetd": "remove it; a socket of systemd is 'endpoint = systemd:domain=INET:index=0' in [listen NAME]",
        **dict.fromkeys(("log", "logfile"), "write 'access_log = FILE'"),
        **dict.fromkeys(
            ("log_level", "loglevel", "verbose"), "remove it; the option is --log-level"
        ),
        "maxconn": "write max_connections",
        "mode": _TRANSPORT,
        **dict.fromkeys(("nbproc", "nbthread", "processes", "threads"), "write workers"),
        "worker_processes": "write workers",
        "pidfile": "remove it; the option is --pidfile",
        "timeout": "write 'detect_timeout' in [listen NAME] for recognising clients",
        "transparent": "write 'source = client' in a [backend NAME]",
    },
    "listen": {
        **dict.fromkeys(("address", "bind", "host", "listen", "port"), f"write '{_LISTEN}'"),
        **dict.fromkeys(("accept_proxy", "proxy_protocol"), "write 'accept_proxy_from = NETWORKS'"),
        **dict.fromkeys(("allowlist", "whitelist"), "write allow"),
        **dict.fromkeys(("ban", "blacklist", "blocklist"), _BANS),
        **dict.fromkeys(("certificate", "ssl", "ssl_certificate"), f"TLS is ended by {_HERE}"),
        **dict.fromkeys(("default_backend", "fallback"), "write 'default'"),
        **dict.fromkeys(("is_udp", "udp"), "write 'endpoint = udp:PORT'"),
        "maxconn": "write max_connections",
        "mode": _TRANSPORT,
        **dict.fromkeys(("on_timeout", "on-timeout"), "write 'silent'"),
        "protocol": "write a [route NAME] with 'match = PROTOCOL'",
        **dict.fromkeys(("limit_conn", "max_conn_per_ip"), "write max_connections_per_source"),
        **dict.fromkeys(("limit", "limit_req", "max_rate", "rate", "rate_limit"), _RATES),
        "proxy_pass": "write 'default' for all clients, or 'backend' in a [route NAME]",
        **dict.fromkeys(("route", "routes"), _BELONGS),
        "timeout": "write 'detect_timeout'",
    },
    "route": {
        **dict.fromkeys(("allow", "deny"), _IN_A_ROUTE),
        "acl": "write the condition as 'match', such as 'match = tls sni=www.example.com'",
        **dict.fromkeys(
            ("certificate", "ssl_certificate", "tls_cert", "tls_certificate"), _ENDS_TLS
        ),
        "default": "'default' is of a [listen NAME]",
        "host": "write it as an option of the matcher: 'match = http host=www.example.com'",
        **dict.fromkeys(("listen", "listener"), "write 'under = NAME'"),
        "name": "the name is in the header, [route NAME]",
        "path": "write it as an option of the matcher: 'match = http path=/api/*'",
        **dict.fromkeys(("protocol", "type"), "write 'match'"),
        **dict.fromkeys(("proxy_pass", "target", "to"), "write 'backend'"),
        "sni": "write it as an option of the matcher: 'match = tls sni=www.example.com'",
        "sni_hostnames": "write it as an option of the matcher: 'match = tls sni=www.example.com'",
        "src": "write 'from = NETWORKS'",
        "tls": "write 'match = tls', and 'terminate_tls = CERTIFICATE.pem, KEY.pem' if it ends here",
        "use_backend": "write 'backend', and the condition as 'match'",
    },
    "backend": {
        **dict.fromkeys(("address", "host", "port", "url"), "write 'server = HOST:PORT'"),
        **dict.fromkeys(("check_interval", "health_check", "healthcheck", "inter"), _CHECKS),
        **dict.fromkeys(("hash", "lb_policy", "load_balancing", "strategy"), "write balance"),
        **dict.fromkeys(("max_fails", "observe", "outlier_detection"), _EJECTS),
        **dict.fromkeys(("max_rate", "proxy_download_rate"), "write upload_rate or download_rate"),
        "proxy_upload_rate": "write upload_rate",
        **dict.fromkeys(("sticky", "stick-table", "stick_table"), "write 'balance = source-hash'"),
        "weight": "write it after the server: 'server = 127.0.0.1:8443 weight=3'",
        "maxconn": "write max_connections",
        "mode": _TRANSPORT,
        "option": "write for example 'check = http path=/health'",
        "proxy_responses": "write answers",
        **dict.fromkeys(("proxy_timeout", "udp_timeout"), "write idle_timeout"),
        **dict.fromkeys(("proxy_ssl", "ssl"), "write 'tls = yes'"),
        **dict.fromkeys(("send_proxy", "send-proxy"), "write 'proxy_protocol = v1'"),
        **dict.fromkeys(("send_proxy_v2", "send-proxy-v2"), "write 'proxy_protocol = v2'"),
        "timeout": "connect_timeout, idle_timeout and max_duration say what it means",
        **dict.fromkeys(("tls_verify", "verify"), _VERIFIED),
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
    **dict.fromkeys(("bind", "frontend", "server"), "listen"),
    **dict.fromkeys(("global", "main", "settings"), "txmux"),
    **dict.fromkeys(("cluster", "pool", "upstream"), "backend"),
    **dict.fromkeys(("acl", "location", "protocol", "rule"), "route"),
}
"""The kind of section for each of these other words at the beginning of a header."""

BALANCE_WORDS = {
    **dict.fromkeys(("hash", "ip_hash", "ip-hash", "least_ip", "source", "sticky"), "source-hash"),
    **dict.fromkeys(
        ("least_conn", "leastconn", "least-conn", "least_request"), "least-connections"
    ),
    **dict.fromkeys(("roundrobin", "round_robin", "rr", "static-rr", "wrr"), "round-robin"),
    **dict.fromkeys(("uri", "url_param", "hdr"), "host-hash"),
    **dict.fromkeys(("rand", "random_choose"), "random"),
}
"""Words of other programs for the choice of a server."""

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
