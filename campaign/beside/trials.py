"""Configurations with each check, balance and time of HAProxy, nginx and Traefik."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import indent

import attrs

PICKY = "picky"
SERVERS = ("healthy", "dead", PICKY, "slow")


@attrs.frozen
class Trial:
    """A configuration.

    Attributes:
        text: As `tests.interop.converted.sidebyside` has it. A server is called as the protocol that it speaks, and as it is:
            ``<redispicky>``; ``<gone>`` is dead.
        ports: What is behind each of its ports.
    """

    program: str
    name: str
    text: str
    ports: Mapping[str, str]


_HAPROXY = """\
defaults
    mode tcp
    timeout connect 4s
    timeout client 20s
    timeout server 20s
    timeout check 4s
"""
_CHECKS = {
    # The protocol that servers speak, the lines of the section, and words of its server.
    "check": ("tcp", "", ""),
    "option httpchk": ("http", "option httpchk", ""),
    "http-check send": (
        "http",
        "option httpchk\nhttp-check send meth GET uri /x ver HTTP/1.1 hdr Host a.example",
        "",
    ),
    "http-check expect string": (
        "http",
        "option httpchk GET /\nhttp-check expect string ready",
        "",
    ),
    "tcp-check send": (
        "redis",
        'option tcp-check\ntcp-check send "PING\\r\\n"\ntcp-check expect string +PONG',
        "",
    ),
    "tcp-check expect": ("smtp", "option tcp-check\ntcp-check expect string 220", ""),
    "option redis-check": ("redis", "option redis-check", ""),
    "option pgsql-check": ("postgres", "option pgsql-check user x", ""),
    "option mysql-check": ("mysql", "option mysql-check", ""),
    "option smtpchk": ("smtp", "option smtpchk", ""),
    "option ldap-check": ("ldap", "option ldap-check", ""),
    "option ssl-hello-chk": ("tls", "option ssl-hello-chk", ""),
    "check-ssl": ("tls", "", "check-ssl verify none"),
}
_TIMES = ("inter 300ms", "inter 300ms rise 1 fall 1", "inter 2s fall 5")


def _haproxy_checks() -> Iterator[Trial]:
    for name, (protocol, lines, words) in _CHECKS.items():
        for times in _TIMES if name == "check" else _TIMES[:1]:
            text, ports = _HAPROXY, {}
            for number, how in enumerate(SERVERS):
                agent = "<gone.port>" if how == "dead" else f"<{protocol}{how}.port>"
                port = f"port{number or ''}"
                ports[port] = how
                text += f"listen {how}\n    bind 127.0.0.1:<{port}>\n{indent(lines, '    ')}\n"
                text += f"    server s <name{how}> check port {agent} {times} {words}\n"
            yield Trial("haproxy", f"{name} {times}", text, ports)


def _haproxy_balance() -> Iterator[Trial]:
    for balance in ("roundrobin", "static-rr", "leastconn", "source", "first", "random"):
        for more in ("", "check inter 300ms", "backup"):
            text, ports = _HAPROXY, {}
            for number, (how, first) in enumerate((("dead", "gone"), ("slow", "talkslow"))):
                port = f"port{number or ''}"
                ports[port] = f"{how} and two healthy"
                servers = [
                    f"server {n} <{s}> {more}" for n, s in enumerate(("namehealthy", "nameother"))
                ]
                servers.insert(0, f"server z <{first}> {more.replace('backup', '')}")
                text += f"listen {how}\n    bind 127.0.0.1:<{port}>\n    balance {balance}\n"
                text += indent("\n".join(servers), "    ") + "\n"
            yield Trial("haproxy", f"balance {balance} {more}", text, ports)
    for line in ("timeout server 3s", "timeout connect 1s", "timeout tunnel 3s", "retries 0"):
        text = (
            f"{_HAPROXY}listen x\n    bind 127.0.0.1:<port>\n    {line}\n    server s <talkslow>\n"
        )
        yield Trial("haproxy", line, text, {"port": "slow"})


def _nginx() -> Iterator[Trial]:
    for group in ("", "least_conn;", "random;", "random two least_conn;", "hash $remote_addr;"):
        for words in ("", "max_fails=0", "max_fails=3 fail_timeout=1s", "backup"):
            text, ports = "", {}
            firsts = (("dead", "gone"), ("picky", "tcppicky"), ("slow", "talkslow"))
            for number, (how, first) in enumerate(firsts):
                port = f"port{number or ''}"
                if words == "backup" and group[:4] in {"rand", "hash"}:
                    continue  # which nginx refuses
                ports[port] = f"{how} and two healthy"
                servers = f"server <{first}> {words.replace('backup', '')};"
                servers += f" server <namehealthy> {words}; server <nameother> {words};"
                text += f"upstream {how} {{ {group} {servers} }}\n"
                text += f"server {{ listen 127.0.0.1:<{port}>; proxy_pass {how}; }}\n"
            if ports:
                yield Trial("nginx", f"{group} {words}".strip(), text, ports)
    for line in ("proxy_connect_timeout 1s", "proxy_timeout 3s", "proxy_next_upstream off"):
        text = f"upstream u {{ server <talkslow>; }}\nserver {{ listen 127.0.0.1:<port>; {line}; proxy_pass u; }}\n"
        yield Trial("nginx", line, text, {"port": "slow"})


_TRAEFIK = """\
entryPoints: {{{points}}}
providers: {{file: {{filename: <folder>/original.yml}}}}
tcp:
  routers: {{{routers}}}
  services: {{{services}}}
"""


def _traefik() -> Iterator[Trial]:
    checks = {
        "no check": "",
        "healthCheck": "healthCheck: {interval: 1s, timeout: 4s}, ",
        "send and expect": 'healthCheck: {interval: 1s, timeout: 4s, send: "PING\\r\\n", expect: "+PONG"}, ',
    }
    for name, check in checks.items():
        points, routers, services = [], [], []
        ports = {}
        for number, how in enumerate(SERVERS):
            port = f"port{number or ''}"
            ports[port] = f"{how} and a healthy one"
            first = "<gone>" if how == "dead" else f"<redis{how}>"
            servers = f"[{{address: '{first}'}}, {{address: '<redishealthy>'}}]"
            points.append(f"{how}: {{address: '127.0.0.1:<{port}>'}}")
            routers.append(f"{how}: {{entryPoints: [{how}], rule: 'HostSNI(`*`)', service: {how}}}")
            services.append(f"{how}: {{loadBalancer: {{{check}servers: {servers}}}}}")
        parts = {"points": points, "routers": routers, "services": services}
        text = _TRAEFIK.format(**{key: ", ".join(each) for key, each in parts.items()})
        yield Trial("traefik", name, text, ports)


TRIALS = (*_haproxy_checks(), *_haproxy_balance(), *_nginx(), *_traefik())
