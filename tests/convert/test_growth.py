"""What it takes to convert a configuration: twice as much takes twice as long. Steps are counted, not seconds."""

from collections.abc import Callable
from functools import partial

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, matchers
from txmux.testing import steps_in
from txmux_convert import Program
from txmux_convert.formats import convert

_Conversion = Callable[[int], Callable[[], object]]


def _of(program: Program, more: str, before: str = "", after: str = "") -> _Conversion:
    """Convert a configuration with any number of something; ``{}`` in it is the number of each."""

    def conversion(size: int) -> Callable[[], object]:
        several = "".join(more.replace("{}", str(number)) for number in range(size))
        data = f"{before}{several}{after}".encode()
        return partial(convert, data, "x.cfg", matchers(), PORTS.get, program)

    return conversion


_FRONTEND = "frontend f\n mode tcp\n bind :443\n tcp-request inspect-delay 5s\n"
_BACKEND = " default_backend b\nbackend b\n mode tcp\n server s 10.0.0.1:1\n"
_MAP = "stream { map $ssl_preread_server_name $to { hostnames;\n"
_LOOKED_UP = "default 10.0.0.2:1; } server { listen 443; ssl_preread on; proxy_pass $to; } }"
_LISTEN = 'listen: ( { host: "0.0.0.0"; port: "443"; } );\nprotocols: ('
_TLS = '{ name: "tls"; host: "10.0.0.1"; port: "1"; } );'
_PARTS, _IN_MAP, _SSH = (_FRONTEND, _BACKEND), (_MAP, _LOOKED_UP), (_LISTEN, _TLS)
_ROUTERS = """entryPoints: {web: {address: ':443'}}
tcp:
  services: {s: {loadBalancer: {servers: [address: 10.0.0.1:1]}}}
  routers:
    r: {entryPoints: [web], rule: 'HostSNI(`*`)', service: s}
"""
_SERVERS = """entryPoints: {web: {address: ':443'}}
tcp:
  routers: {r: {entryPoints: [web], rule: 'HostSNI(`*`)', service: s}}
  services:
    s:
      loadBalancer:
        servers:
        - address: 10.0.0.1:1
"""
_CONFIGURATIONS = {
    "frontends and backends": _of(
        "haproxy",
        "frontend f{}\n mode tcp\n bind :1{}\n default_backend b{}\n"
        "backend b{}\n mode tcp\n server s 10.0.0.1:1\n",
    ),
    "acls": _of("haproxy", " acl h{} req_ssl_sni -i a{}.example\n use_backend b if h{}\n", *_PARTS),
    "defaults from defaults": _of(
        "haproxy",
        "defaults d from d\n timeout client {}s\n",
        "defaults d\n mode tcp\n",
        _FRONTEND + _BACKEND,
    ),
    "networks that are refused": _of(
        "haproxy", " tcp-request connection reject if { src 10.0.{}.0/24 }\n", *_PARTS
    ),
    "names of a map": _of("nginx", "a{}.example 10.0.0.1:1{};\n", *_IN_MAP),
    "two servers": _of("nginx", "a{}.example 10.0.0.1:1;\nb{}.example 10.0.0.3:1;\n", *_IN_MAP),
    "wildcards": _of("nginx", "*.a{}.example 10.0.0.1:1{};\n", *_IN_MAP),
    "networks": _of(
        "nginx",
        "10.0.{}.0/24 10.0.0.1:1{};\n",
        "stream { geo $to {\n",
        "default 10.0.0.2:1; } server { listen 443; proxy_pass $to; } }",
    ),
    "servers": _of("nginx", "server { listen 1{}; proxy_pass 10.0.0.1:1{}; }\n", "stream {", "}"),
    "protocols": _of("sslh", '{ name: "ssh"; host: "10.0.0.1"; port: "22"; },', *_SSH),
    "ports that are none": _of("sslh", '{ name: "ssh"; host: "10.0.0.1"; port: "70000"; },', *_SSH),
    "entries": _of("sniproxy", "a{}.example 10.0.0.1:1{}\n", "listen 443 {\n}\ntable {\n", "}\n"),
    "names as servers": _of("sniproxy", "a{}.example *\n", "listen 443 {\n}\ntable {\n", "}\n"),
    "services": _of("stunnel", "[s{}]\naccept = 1{}\nconnect = 2{}\ncert = /x.pem\n"),
    "names of a service": _of(
        "stunnel",
        "[s{}]\nsni = s:a{}\nconnect = 2{}\n",
        "cert = /x.pem\n[s]\naccept = 1\nconnect = 2\n",
    ),
    "routers": _of(
        "traefik",
        "    r{}: {entryPoints: [web], rule: 'HostSNI(`a{}`)', service: s, tls: {}}\n",
        _ROUTERS,
    ),
    "alternatives": _of(
        "traefik", "HostSNI(`*`) || ", _ROUTERS + "    q: {service: s, rule: '", "HostSNI(`*`)'}"
    ),
    "addresses that are none": _of("traefik", "        - address: 10.0.0.1:70000\n", _SERVERS),
}


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def test_twice_as_much_takes_twice_as_long(self) -> None:
        for what, conversion in _CONFIGURATIONS.items():
            conversion(1)()  # what is imported at the first use does not count
            few, some, many = (steps_in(conversion(size)) for size in (12, 24, 48))
            self.assertGreater(many - some, some - few, what)
            self.assertLess(many - some, 2.25 * (some - few), (what, few, some, many))
