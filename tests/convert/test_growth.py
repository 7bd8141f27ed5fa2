"""What it takes to convert a configuration: twice as much takes twice as long. Steps are counted, not seconds."""

from functools import partial

import attrs
import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, matchers
from txmux.testing import steps_in
from txmux_convert import Program
from txmux_convert.formats import convert

_SIZES = (12, 24, 48)


@attrs.frozen
class _Growing:
    """A configuration with any number of something.

    Attributes:
        more: What there are several of; ``{}`` is the number of each.
    """

    program: Program
    more: str
    before: str = ""
    after: str = ""

    def of(self, size: int) -> bytes:
        several = "".join(self.more.replace("{}", str(number)) for number in range(size))
        return f"{self.before}{several}{self.after}".encode()


_FRONTEND = "frontend f\n mode tcp\n bind :443\n tcp-request inspect-delay 5s\n"
_BACKEND = " default_backend b\nbackend b\n mode tcp\n server s 10.0.0.1:1\n"
_MAP = "stream { map $ssl_preread_server_name $to { hostnames;\n"
_LOOKED_UP = "default 10.0.0.2:1; } server { listen 443; ssl_preread on; proxy_pass $to; } }"
_LISTEN = 'listen: ( { host: "0.0.0.0"; port: "443"; } );\nprotocols: ('
_TLS = '{ name: "tls"; host: "10.0.0.1"; port: "1"; } );'
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
    "frontends and backends": _Growing(
        "haproxy",
        "frontend f{}\n mode tcp\n bind :1{}\n default_backend b{}\n"
        "backend b{}\n mode tcp\n server s 10.0.0.1:1\n",
    ),
    "acls": _Growing(
        "haproxy",
        " acl h{} req_ssl_sni -i a{}.example\n use_backend b if h{}\n",
        _FRONTEND,
        _BACKEND,
    ),
    "defaults from defaults": _Growing(
        "haproxy",
        "defaults d from d\n timeout client {}s\n",
        "defaults d\n mode tcp\n",
        _FRONTEND + _BACKEND,
    ),
    "networks that are refused": _Growing(
        "haproxy", " tcp-request connection reject if { src 10.0.{}.0/24 }\n", _FRONTEND, _BACKEND
    ),
    "names of a map": _Growing("nginx", "a{}.example 10.0.0.1:1{};\n", _MAP, _LOOKED_UP),
    "two servers by turns": _Growing(
        "nginx", "a{}.example 10.0.0.1:1;\nb{}.example 10.0.0.3:1;\n", _MAP, _LOOKED_UP
    ),
    "wildcards": _Growing("nginx", "*.a{}.example 10.0.0.1:1{};\n", _MAP, _LOOKED_UP),
    "networks": _Growing(
        "nginx",
        "10.0.{}.0/24 10.0.0.1:1{};\n",
        "stream { geo $to {\n",
        "default 10.0.0.2:1; } server { listen 443; proxy_pass $to; } }",
    ),
    "servers": _Growing(
        "nginx", "server { listen 1{}; proxy_pass 10.0.0.1:1{}; }\n", "stream {", "}"
    ),
    "protocols": _Growing("sslh", '{ name: "ssh"; host: "10.0.0.1"; port: "22"; },', _LISTEN, _TLS),
    "ports that are none": _Growing(
        "sslh", '{ name: "ssh"; host: "10.0.0.1"; port: "70000"; },', _LISTEN, _TLS
    ),
    "entries": _Growing(
        "sniproxy", "a{}.example 10.0.0.1:1{}\n", "listen 443 {\n}\ntable {\n", "}\n"
    ),
    "names as servers": _Growing(
        "sniproxy", "a{}.example *\n", "listen 443 {\n}\ntable {\n", "}\n"
    ),
    "services": _Growing("stunnel", "[s{}]\naccept = 1{}\nconnect = 2{}\ncert = /x.pem\n"),
    "names of a service": _Growing(
        "stunnel",
        "[s{}]\nsni = s:a{}\nconnect = 2{}\n",
        "cert = /x.pem\n[s]\naccept = 1\nconnect = 2\n",
    ),
    "routers": _Growing(
        "traefik",
        "    r{}: {entryPoints: [web], rule: 'HostSNI(`a{}`)', service: s, tls: {}}\n",
        _ROUTERS,
    ),
    "alternatives": _Growing(
        "traefik", "HostSNI(`*`) || ", _ROUTERS + "    q: {service: s, rule: '", "HostSNI(`*`)'}"
    ),
    "addresses that are none": _Growing("traefik", "        - address: 10.0.0.1:70000\n", _SERVERS),
}


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def test_twice_as_much_takes_twice_as_long(self) -> None:
        for what, growing in _CONFIGURATIONS.items():
            _convert(growing, 1)  # what is imported at the first use does not count
            few, some, many = (steps_in(partial(_convert, growing, size)) for size in _SIZES)
            self.assertGreater(many - some, some - few, what)
            self.assertLess(many - some, 2.25 * (some - few), (what, few, some, many))


def _convert(growing: _Growing, size: int) -> None:
    convert(growing.of(size), "x.cfg", matchers(), PORTS.get, growing.program)
