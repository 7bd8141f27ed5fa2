"""Words of sslh, HAProxy and nginx that operators write by habit, and what to write instead."""

import re
from collections.abc import Mapping

from txmux.rules.installed import HINTS as HINTS_OF_FEATURES

LISTEN = "endpoint = :443"
BACKEND = "write 'backend'"
NAMED = "write it as an option of the matcher: 'match = tls sni=www.example.com' or 'match = http host=www.example.com'; a server belongs into backend"
ENDS_TLS_HERE = "'terminate_tls = CERTIFICATE.pem, KEY.pem' in a [route]"

_TRANSPORT = "remove it; a [listen] with 'endpoint = udp:PORT' uses UDP, any other TCP"
_ENDS_TLS = "write 'terminate_tls = CERTIFICATE.pem, KEY.pem'"
_BELONGS = "a route names its listeners: 'under' in [route NAME]; without it, it belongs to all"
_UNDER = "'under = NAME' limits a route to one listener; without it, it is for all"
_VERIFIED = (
    "remove it; the name in the certificate is always verified, 'tls_ca = FILE' names an authority"
)
_BANS = "write 'deny = NETWORKS'; 'txmux ban ADDRESS' keeps a client out for a while"
_RATES = "write 'connection_rate_per_source = 20/s burst=40'"
_IN_A_ROUTE = "write 'from' or 'not_from', or move it to [listen NAME]"
_CHECKS = "write 'check = tcp interval=2s' or 'check = http path=/health'"
_EJECTS = "write 'eject = failures=3 within=10s for=10s'"
AFTER_IT = "write it after the server: 'server = 127.0.0.1:8080"
_ADMIN = "write 'admin = 127.0.0.1:8440' and 'admin_token = /var/lib/txmux/token'"
_NO_HTTP = "remove it; txmux changes nothing of HTTP, so the server behind it has to send that"
_SWITCHED = "remove it; to switch a section off, put '#' before its lines"
_PASSES = "remove it; TLS passes through where no 'terminate_tls' ends it"
_BANDWIDTHS = "bandwidth bandwidth_limit bwlimit limit_rate"
_BANDWIDTH = "write upload_rate or download_rate, for each connection, in a [backend NAME]"
CLIENT_CA = "write 'tls_client_ca = FILE' beside 'terminate_tls = CERTIFICATE.pem, KEY.pem'"
REDIRECTS = "add_header header headers http_redirect redirect redirect_scheme return rewrite"
_IDLE = "write 'idle_timeout' in a [backend NAME]"
_CHECK_WORDS = """
    active_health_check check_inter check_interval check_timeout check_uri fall health_check health_checks health_path health_uri health_check_path healthcheck httpchk inter
    interval option_httpchk probe rise tcp_check
"""


def each(words: str, hint: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), hint)


# fmt: off
KEY_HINTS: Mapping[str, Mapping[str, str]] = {
    "txmux": {
        **each("admin_address admin_bind admin_listen admin_port api dashboard stats", _ADMIN),
        **each("admin_password admin_secret admin_user auth password stats_auth token", f"{_ADMIN}, the path of a file, which has the secret"),
        **each(f"{_BANDWIDTHS} download_limit max_rate upload_limit", _BANDWIDTH),
        "chroot": "remove it; 'user' takes the privilege from the service",
        "daemon": "remove it; systemd or another supervisor runs txmux in the background",
        **each("debug log_level loglevel verbose", "remove it; the option is --log-level"),
        **each("dns name_server nameserver nameservers", "write resolvers"),
        **each("auto_reload hot_reload reload watch", "write 'watch_rules = 10s'"),
        **each("geo geoip geoip_database maxmind", "write 'geo_databases = FILE'"),
        "error_log": "remove it; the service's log goes to standard error",
        "foreground": "remove it; txmux always runs in the foreground",
        **each("grace_period graceful_timeout hard_stop_after shutdown_timeout", "write drain_timeout"),
        "inetd": "remove it; a socket of systemd is 'endpoint = systemd:domain=INET:index=0' in [listen NAME]",
        **each("bind listen port", f"write '{LISTEN}' in [listen NAME]"),
        **each("log log_file logfile", "write 'access_log = FILE'"),
        "log_format": "write access_log_format",
        "maxconn": "write max_connections",
        **each("metrics_port prometheus", "write 'metrics = 127.0.0.1:9443'"),
        "mode": _TRANSPORT,
        **each("nbproc nbthread processes threads worker_processes", "write workers"),
        "pidfile": "remove it; the option is --pidfile",
        **each("limit rate rate_limit", f"{_RATES} in [listen NAME]"),
        "shared_limits_password": "write it after the address: 'shared_limits = redis://HOST password=FILE'",
        "timeout": "write 'detect_timeout' in [listen NAME] for recognising clients",
        **each("client_timeout timeout_client timeout_server", _IDLE),
        "transparent": "write 'source = client' in a [backend NAME]",
    },
    "listen": {
        **each("address bind host interface listen port", f"write '{LISTEN}'"),
        **each("ipv6_only ipv6only", "write 'endpoint = [::]:443' for IPv6 alone"),
        **each("accept_proxy accept_proxy_protocol proxy_protocol proxy_protocol_from set_real_ip_from trusted_ips trustedips", "write 'accept_proxy_from = NETWORKS'"),
        **each("allow_from allowlist whitelist", "write allow"),
        "backlog": "remove it; it is the system's maximum (net.core.somaxconn); an endpoint string can have less, as in 'endpoint = tcp:443:backlog=50'",
        **each("ban blacklist blocklist", _BANS),
        **each(f"{_BANDWIDTHS} download_limit max_rate upload_limit", _BANDWIDTH),
        **each("cert certificate crt key ssl ssl_certificate tls tls_cert", f"TLS is ended by {ENDS_TLS_HERE}"),
        **each("client_timeout read_timeout timeout_client", _IDLE),
        **each("country geoip", "write 'allow = geo:country=DE' and 'geo_databases = FILE' in [txmux]"),
        **each("default_backend else fallback no_match on_no_match otherwise unmatched", "write 'default'"),
        **each("inspect_delay preread_timeout timeout", "write 'detect_timeout'"),
        **each("is_udp udp", "write 'endpoint = udp:PORT'"),
        "log_format": "write 'access_log_format' in [txmux]",
        "maxconn": "write max_connections",
        "max_handshakes_per_source": "remove it; it is 150, or max_undecided_per_source where that is more",
        "mode": _TRANSPORT,
        "name": "the name is in the header, [listen NAME]",
        **each("on_timeout", "write 'silent'"),
        "protocol": "write 'match = PROTOCOL' in a [route NAME]",
        **each("connlimit limit_conn max_conn_per_ip", "write max_connections_per_source"),
        **each("conn_rate limit limit_req max_rate rate rate_limit", _RATES),
        **each("proxy_pass reverse_proxy target upstream", "write 'default' for all clients, or 'backend' in a [route NAME]"),
        "multipath": "write 'mptcp = yes'",
        **each("reuseport tcp_nodelay", "remove it; txmux does so where it helps"),
        "race": "remove it; the server of 'silent' is connected when the client's time is over, and 'after=' shortens that",
        **each("route routes", _BELONGS),
        **each("send_proxy", "write 'proxy_protocol = v1' in a [backend NAME]"),
        **each(REDIRECTS, _NO_HTTP),
        **each("disabled enable enabled", _SWITCHED),
        **each("server_name server_names sni tls_sni", "write 'match = tls sni=www.example.com' in a [route NAME]"),
        "transparent": "write 'source = client' in a [backend NAME]",
    },
    "route": {
        **each("allow deny", _IN_A_ROUTE),
        **each("acl condition if rule when", "write 'match', as in 'match = tls sni=www.example.com'"),
        "action": "write 'backend = close', or a server",
        **each("allowlist client client_ip clients ip networks remote_ip source source_ip sourcerange src whitelist", "write 'from = NETWORKS'"),
        "alpn_protocols": "write it as an option of the matcher: 'match = tls alpn=h2'",
        **each(f"{_BANDWIDTHS} download_limit max_rate upload_limit", _BANDWIDTH),
        **each("blacklist blocklist", "write 'not_from = NETWORKS'"),
        **each("auth basic_auth htpasswd users", "write tunnel_users for clients that ask for a tunnel; no others are asked for a password"),
        **each("cert certificate key ssl_cert ssl_certificate ssl_certificate_key ssl_key terminate tls_cert tls_certificate tls_key tls_termination", _ENDS_TLS),
        **each("client_ca mtls", CLIENT_CA),
        **each("hours schedule time times", "write 'during = mon-fri 08:00-18:00'"),
        "default": "'default' is of a [listen NAME]",
        **each("entrypoint entrypoints listen listener listeners on", _UNDER),
        **each("domain domains host hostname hosts server_name server_names", NAMED),
        "name": "the name is in the header, [route NAME]",
        **each("order priority weight", "remove it; routes are asked in the order of the file"),
        **each(REDIRECTS, _NO_HTTP),
        **each("disabled enable enabled", _SWITCHED),
        "path": "write it as an option of the matcher: 'match = http path=/api/*'",
        **each("passthrough tls_passthrough", _PASSES),
        **each("probe protocol protocols type", "write 'match'"),
        **each("address destination dial forward port proxy proxy_pass reverse_proxy server service target to upstream url", BACKEND),
        **each("limit rate rate_limit", f"{_RATES} in [listen NAME]"),
        **each("pattern regex regex_patterns regexp", "write it as a matcher: 'match = regex pattern=^HELLO'"),
        **each("send_proxy", "write 'proxy_protocol = v1' in a [backend NAME]"),
        **each("send_proxy_v2", "write 'proxy_protocol = v2' in a [backend NAME]"),
        **each("sni sni_hostnames tls_sni", "write it as an option of the matcher: 'match = tls sni=www.example.com'"),
        "tls_insecure": "remove it; the certificate of a server is always verified",
        "timeout": "write 'detect_timeout' in [listen NAME], or 'idle_timeout' in [backend NAME]",
        **each("client_auth clientauth ssl_verify_client verify verify_client", f"{CLIENT_CA}; 'tls_client = optional' is for clients that may have none"),
        **each("ssl_min_ver ssl_protocols", "write 'tls_minimum = 1.2' beside 'terminate_tls = CERTIFICATE.pem, KEY.pem'"),
        "tls": "write 'match = tls', and 'terminate_tls = CERTIFICATE.pem, KEY.pem' if it ends here",
        "use_backend": "write 'backend' with 'match = tls sni=www.example.com' for its condition",
    },
    "backend": {
        "accept_proxy": "write 'accept_proxy_from = NETWORKS' in [listen NAME]",
        **each("address dial host hostname members port proxy_pass reverse_proxy target to upstream upstreams url", "write 'server = HOST:PORT'"),
        "backup": f"{AFTER_IT} backup'",
        "down": f"{AFTER_IT} down'",
        "weight": f"{AFTER_IT} weight=3'",
        **each("ca ca_file cafile", "write 'tls_ca = FILE' beside 'tls = yes'"),
        **each("cert client_cert crt", "write 'tls_client_certificate = FILE' beside 'tls = yes'"),
        **each(_CHECK_WORDS, _CHECKS),
        **each("algorithm hash lb lb_policy load_balancing method scheduler strategy", "write balance"),
        **each("dial_timeout proxy_connect_timeout timeout_connect", "write connect_timeout"),
        "congestion": "remove it; servers get the system's congestion control, those on this machine one that does not pace",
        "dns": "write resolvers",
        **each("download_idle_timeout upload_idle_timeout", "write 'idle_timeout', which is for bytes of either side"),
        **each("circuit_breaker fail_timeout max_fails observe outlier_detection passive_health_check", _EJECTS),
        **each(f"{_BANDWIDTHS} max_rate proxy_download_rate", "write upload_rate or download_rate"),
        "download_limit": "write download_rate",
        **each("proxy_upload_rate upload_limit", "write upload_rate"),
        **each("affinity cookie ip_hash persistence session_affinity stick_table sticky", "write 'balance = source-hash'"),
        **each("least_conn leastconn", "write 'balance = least-connections'"),
        "maxconn": "write max_connections",
        "half_close_timeout": "remove it; it is one minute, or idle_timeout where that is less",
        "mode": _TRANSPORT,
        "on_marked_down": "write 'end_on_down = yes'",
        **each("option", "write for example 'check = http path=/health'"),
        **each("proxy_bind transparent usesrc", "write 'source = ADDRESS', or 'source = client'"),
        **each("proxy_next_upstream redispatch", "write retries"),
        "overflow": "remove it; a 'backup' gets the clients that the others have no room for, unless they can wait in the 'queue'",
        "proxy_every": "remove it; the header is in each datagram, since any of them can be lost",
        "proxy_responses": "write answers",
        **each("proxy_timeout read_timeout send_timeout server_timeout timeout_server timeout_tunnel tunnel_timeout udp_timeout", "write idle_timeout"),
        **each("proxy_ssl ssl", "write 'tls = yes'"),
        **each("proxy_ssl_name server_name sni tls_sni", "write 'tls_name = NAME' beside 'tls = yes'"),
        "send_proxy": "write 'proxy_protocol = v1', or v2",
        **each("send_proxy_v2", "write 'proxy_protocol = v2'"),
        "queue_timeout": "remove it; clients wait in the 'queue' for connect_timeout at most",
        **each(REDIRECTS, _NO_HTTP),
        **each("disabled enable enabled", _SWITCHED),
        "servers": "write 'server', with one a line",
        "timeout": "connect_timeout, idle_timeout and max_duration say what it means",
        **each("insecure insecure_skip_verify tls_insecure tls_skip_verify tls_verify verify verify_hostname", _VERIFIED),
    },
}
# fmt: on
"""By kind of section and unknown key, in small letters and with ``_`` for ``-``: what to do."""

HINTS = {kind: {**KEY_HINTS[kind], **HINTS_OF_FEATURES[kind]} for kind in KEY_HINTS}
"""`KEY_HINTS`, with those of features."""

SECTION_ALIASES = {
    **each("bind entrypoint entrypoints frontend", "listen"),
    **each("acme admin api defaults global log logging main metrics settings stats", "txmux"),
    **each("cluster pool server service services upstream upstreams", "backend"),
    **each("acl location protocol router routers rule", "route"),
}
"""The kind of section for each of these other words at the beginning of a header."""

LIKE_HOST = re.compile(r"[\w*-]+(\.[\w*-]+)+")
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>[^/:\[\]]*|\[[^\]/]*\])(?::(?P<port>[0-9]+))?(?:/.*)?"
)
_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ssh": "22"}
_TLS = frozenset({"https", "wss", "tls", "ssl"})


PLAIN = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"), ""),
}
"""Dashes and blanks of word processors and web pages, and the plain ones."""


def normalised_key(name: str) -> str:
    return re.sub("[- ]", "_", name.casefold())


def without_scheme(text: str) -> tuple[str, bool] | None:
    """Return host and port of a URL, and whether it is one of TLS; ``None`` if the text is no URL of a host."""
    match = _URL.fullmatch(text)
    if match is None or not match["host"]:
        return None
    port = match["port"] or _PORTS.get(match["scheme"], "PORT")
    return f"{match['host']}:{port}", match["scheme"] in _TLS
