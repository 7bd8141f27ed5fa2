"""No directive of the other programs is lost in silence: each is taken over, reported, or in a table that says why it has no effect.

``directives/`` has those of the programs' own documentation. Each is converted alone and among others.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, matchers
from txmux_convert import PROGRAMS, Program, sniproxy, stunnel
from txmux_convert.formats import convert
from txmux_convert.haproxy import binds, servers
from txmux_convert.haproxy import converter as haproxy
from txmux_convert.nginx import converter as nginx
from txmux_convert.nginx import servers as nginx_servers
from txmux_convert.nginx import upstreams
from txmux_convert.sslh import converter as sslh
from txmux_convert.traefik import converter as traefik
from txmux_convert.writer import ConvertError

_BARE = {
    "haproxy": """
global
    {global}
frontend f
    bind 127.0.0.1:1 {bind}
    {frontend}
    default_backend b
backend b
    server s 192.0.2.2:1 {parameter}
    {backend}
backend c
    server s 192.0.2.3:1
resolvers r
    nameserver n 192.0.2.53:53
    {resolvers}
{section}
""",
    "nginx": """
stream {{
    {stream}
    limit_conn_zone $remote_addr zone=by:1m;
    server {{ listen 1 {listen}; proxy_pass u; {server} }}
    upstream u {{ server 192.0.2.2:1 {member}; {upstream} }}
}}
""",
    "sslh": """
listen: ( {{ host: "127.0.0.1"; port: "1"; {endpoint} }} );
{top}
protocols: ( {{ name: "tls"; host: "192.0.2.2"; port: "1"; {protocol} }},
    {{ name: "regex"; host: "192.0.2.3"; port: "1"; {regex} }},
    {{ name: "ssh"; host: "192.0.2.3"; port: "1"; {other} }} );
""",
    "sniproxy": """
{top}
resolver {{
{names}
}}
listener 127.0.0.1:1 {{
{listener}
}}
table {{
{table}
x 192.0.2.2
}}
""",
    "stunnel": "{global}\n[x]\naccept = 1\nconnect = 192.0.2.2:1\ncert = /x\n{service}\n",
    "traefik": """
entryPoints: {e: {address: ':1'}, u: {address: ':2/udp'}}
tcp:
  routers: {r: {rule: 'HostSNI(`*`)', service: s}}
  services: {s: {loadBalancer: {servers: [{address: '192.0.2.2:1'}]}}}
udp:
  routers: {r: {service: v}}
  services: {v: {loadBalancer: {servers: [{address: '192.0.2.2:1'}]}}}
""",
}
_AMONG = {
    "sslh": _BARE["sslh"].replace(
        " );", ', {{ is_udp: true; host: "127.0.0.1"; port: "2"; }} );', 1
    ),
    "sniproxy": _BARE["sniproxy"].replace("127.0.0.1", "[::]"),
    "haproxy": """
global
    maxconn 100
    {global}
defaults
    timeout connect 5s
    timeout queue 7s
    retries 2
frontend f
    bind 127.0.0.1:1
    bind :2
    bind :::3 {bind}
    bind :::2 ssl crt a verify required ca-file b {bind}
    tcp-request inspect-delay 5s
    {frontend}
    tcp-request content reject if !HTTP
    use_backend c if { src 192.0.2.1 }
    use_backend c if x
    default_backend b
backend b
    option tcp-check
    server s a.example:1 weight 3 send-proxy-v2 maxconn 9 ssl resolvers r {parameter} check verify required
    {backend}
    tcp-check expect string y
    server t a.example:2 send-proxy-v2 ssl resolvers r check verify required
    server y a.example:3 send-proxy-v2 ssl resolvers r check verify required backup
    server z a.example:4 send-proxy-v2 ssl resolvers r check verify required backup
backend c
    server s 192.0.2.3:1 ssl ca-file /x
resolvers r
    nameserver n 192.0.2.53:53
    {resolvers}
{section}
""".replace("{ src 192.0.2.1 }", "{{ src 192.0.2.1 }}"),
    "nginx": """
stream {{
    limit_conn_zone $remote_addr zone=by:1m;
    geo $z {{ default a; }}
    resolver 192.0.2.53 {resolver};
    {stream}
    server {{ listen [::]:1 proxy_protocol {listen}; proxy_pass u; {server} }}
    server {{ listen 2 ssl; ssl_certificate a; ssl_certificate_key a; ssl_verify_client on; ssl_client_certificate b; proxy_pass w; }}
    server {{ listen 3 udp; proxy_pass u; proxy_responses 1; }}
    server {{ listen 4; proxy_pass w; ssl_preread on; limit_conn by 7; proxy_ssl on; health_check; }}
    server {{ listen 5; proxy_pass $ssl_preread_server_name:1; ssl_preread on; }}
    server {{ listen 6 ssl; ssl_verify_client on; proxy_ssl on; proxy_ssl_verify on; proxy_pass a.example:1; limit_conn other 7; }}
    server {{ listen 7; {server} }}
    server {{ listen 8 udp; proxy_pass w; }}
    server {{ listen 9; proxy_pass $y; }}
    server {{ listen 10 ssl; ssl_certificate a; ssl_certificate_key a; ssl_client_certificate b; proxy_pass w; }}
    server {{ listen 11; proxy_pass $x; {server} }}
    upstream u {{ server b.example:1 {member}; server a.example:2 resolve; server 192.0.2.4:1 backup; {upstream} }}
    upstream w {{ server 192.0.2.2:1; server 192.0.2.3:1; }}
}}
""",
    "stunnel": "{global}\n[x]\naccept = 1\nconnect = 192.0.2.2:1\nconnect = 192.0.2.3:1\ncert = /x\n"
    "verifyChain = yes\nCAfile = /x\n{service}\n[y]\nsni = x:a.example\nconnect = 192.0.2.3:1\ncert = /x\n"
    "[z]\nclient = yes\nprotocol = connect\nprotocolHost = a.example:1\naccept = 2\nconnect = 192.0.2.4:1\n{service}\n",
    "traefik": """
certificatesResolvers: {a: {acme: {email: a@a.example}}}
entryPoints: {d: {address: ':3'}, e: {address: ':1'}, u: {address: ':2/udp'}}
tcp:
  routers:
    p: {rule: 'ClientIP(`192.0.2.1`) || HostSNI(`y`)', service: s}
    q: {rule: 'HostSNI(`x`)', service: s, tls: {options: o}, priority: 30}
    r: {rule: 'HostSNI(`c.example`)', service: s, tls: {}, middlewares: [m]}
  services: {s: {loadBalancer: {serversTransport: t, servers: [{address: 'a.example:1', tls: true}]}}}
  serversTransports: {t: {tls: {serverName: y}}}
  middlewares: {m: {ipAllowList: {sourceRange: [10.0.0.0/8]}}}
tls:
  certificates: [{certFile: c, keyFile: c}]
  options: {o: {minVersion: VersionTLS12}}
udp:
  routers: {r: {service: v}}
  services: {v: {loadBalancer: {servers: [{address: '192.0.2.2:1'}]}}}
""",
}
_IN_A_LINE = frozenset({"bind", "listen", "member", "parameter", "resolver"})
"""Places of words; at others stand lines."""


@pytest.mark.by_turns(each=True)
class DirectivesTests(SynchronousTestCase):
    def test_none_is_lost_in_silence(self) -> None:
        wrong: list[str] = []
        for program in PROGRAMS:
            for needs_others, place, directives in _directives(program):
                tried = [_seen(program, base, place, directives) for base in (_BARE, _AMONG)]
                for directive in directives:
                    seen = [directive in each for each in tried]
                    reason = _reason(program, place, directive)
                    found = any(seen) if needs_others else all(seen)
                    if reason:  # of stunnel, the same line has one in some services only
                        found = program == "stunnel" or not any(seen)
                    if not found:
                        wrong.append(f"{program} {place}: {directive}: {seen} {reason}")
        self.assertEqual(wrong, [])


def _seen(
    program: Program, bases: Mapping[str, str], place: str, directives: list[str]
) -> set[str]:
    """Return the directives of which something comes at a place of a configuration.

    Those that are reported by name are found together; each of the others is tried alone.
    """
    base = bases[program]
    simple = [d for d in directives if " && " not in d and not _reason(program, place, d)]
    texts = [_texts(program, place, each)[1] for each in simple]
    together = (" " if place in _IN_A_LINE else "\n").join(texts)
    named = _phrases(_converted(program, base, place, together))
    named -= _phrases(_converted(program, base, place, ""))
    reported = {each for each in simple if not named.isdisjoint({each, each.split(" ")[0]})}
    changing = set()
    for each in {*directives} - reported:
        before, text = _texts(program, place, each)
        if _converted(program, base, place, text) != _converted(program, base, place, before):
            changing.add(each)
    return reported | changing


def _phrases(lines: list[str]) -> set[str]:
    phrases = re.split("[:,;()\n]+ ?|no counterpart of ", "\n".join(lines))
    return {phrase.strip() for phrase in phrases}


def _directives(program: str) -> Iterator[tuple[bool, str, list[str]]]:
    file = Path(__file__).parent / "directives" / f"{program}.txt"
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            place, _, texts = line.partition(" ")
            yield place.startswith("+"), place.removeprefix("+"), texts.split(" ; ")


@cache
def _converted(program: Program, base: str, place: str, text: str) -> list[str]:
    places = {**dict.fromkeys(re.findall(r"(?<!{){(\w+)}", base), ""), place: text}
    configuration = _of_traefik(base, text) if program == "traefik" else base.format(**places)
    try:
        output = convert(configuration.encode(), "x", matchers(), PORTS.get, program)
    except ConvertError as error:
        return [str(error)]
    lines = [*output.text.splitlines(), *output.warnings]
    return [re.sub(r"\bline \d+|\bx:\d+", "", line) for line in lines]


def _of_traefik(base: str, text: str) -> str:
    yaml: Any = import_module("yaml")
    configuration = yaml.safe_load(base)
    for line in text.splitlines():
        path, _, value = line.partition(" ")
        *above, last = path.split(".")
        node: dict[str, Any] = configuration
        for key in above:
            node = node.setdefault(key, {})
        node[last] = yaml.safe_load(value)
    return str(yaml.safe_dump(configuration, sort_keys=False))


def _texts(program: str, place: str, directive: str) -> tuple[str, str]:
    """Return what is there without a directive, and with it; before ``&&`` stands what it needs in any case."""
    before, _, directive = directive.rpartition(" && ")
    is_ended = program == "sslh" or (program == "nginx" and place not in _IN_A_LINE)
    end = ";" if is_ended and not directive.endswith("}") else ""
    between = " " if place in _IN_A_LINE else "\n"
    return before, f"{before}{between}{directive}{end}".strip()


def _reason(program: str, place: str, text: str) -> str:
    first = re.split("[ :=]", text)[0]
    tables: dict[str, Mapping[str, str]] = {
        "haproxy": haproxy.WITHOUT_EFFECT,
        "haproxy global": {},
        "haproxy bind": binds.WITHOUT_EFFECT,
        "haproxy parameter": servers.WITHOUT_EFFECT,
        "nginx": nginx.WITHOUT_EFFECT,
        "nginx listen": nginx_servers.WITHOUT_EFFECT,
        "nginx member": {},
        "nginx upstream": upstreams.WITHOUT_EFFECT,
        "sniproxy": sniproxy.WITHOUT_EFFECT,
        "sslh other": sslh.WITHOUT_EFFECT,
        "sslh": {k: v for k, v in sslh.WITHOUT_EFFECT.items() if ":" in k or "resolve" in k},
        "traefik": traefik.WITHOUT_EFFECT,
    }
    if program == "stunnel":
        patterns = stunnel.WITHOUT_EFFECT.items()
        return next((why for pattern, why in patterns if re.fullmatch(pattern, text.lower())), "")
    table = tables.get(f"{program} {place}", tables.get(program, {}))
    names = (text, first, " ".join(text.split()[:2]), text.split(maxsplit=1)[0].lower())
    return next((table[name] for name in names if name in table), "")
