"""Real clients of many protocols on one port, where each of them reaches its own route.

The routes close the connection, so that nothing but detection is tested.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, ClassVar
from unittest import SkipTest

from OpenSSL import SSL

from tests.interop.children import Child, InteropTestCase, eventually, output_of, run
from tests.interop.mux import Mux
from tests.interop.servers import make_certificate
from tests.programs import require_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.mux import Record

_MATCHERS = (
    *("adb", "amqp", "bitcoin", "bittorrent", "cassandra", "dns", "erlang", "git"),
    *("grpc", "http2", "http"),
    *("irc", "jdwp", "kafka", "ldap", "memcached", "minecraft", "mqtt", "openvpn", "postgres"),
    *("proxy", "rdp", "rsync", "rtsp", "sip", "smb", "socks4", "socks5", "mongodb"),
    *("ssh", "stomp", "stun", "syslog", "tds", "telnet", "tinc", "tls", "tns", "winbox"),
    *("x11", "xmpp", "zookeeper", "iperf3", "redis", "random"),
)
"""All that know a protocol, in the order of the alphabet but for those of which the documentation asks for another."""

# With such a timeout no client reaches its route only because an earlier one has given up waiting.
_LISTEN = """\
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[route h2]
match   = tls alpn=h2
backend = close
"""

_ROUTE = """
[route {name}]
match   = {name}
backend = close
"""

_OPENSSL_3_5 = 0x30500000
"""The first release that offers post-quantum key exchange, and does so by default."""

_ML_KEM_768 = 1184
"""Bytes of a public key for such a key exchange."""

_TLS = """\
import socket, sys
from OpenSSL import SSL
connected = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), connected)
client.set_connect_state()
client.do_handshake()
"""

_MONGODB = """\
import sys
from pymongo import MongoClient
from pymongo.server_api import ServerApi
api = ServerApi("1") if "api" in sys.argv else None
MongoClient("127.0.0.1", int(sys.argv[1]), server_api=api).admin.command("ping")
"""

_CASSANDRA = """\
import sys
from cassandra.cluster import Cluster
Cluster(["127.0.0.1"], port=int(sys.argv[1])).connect()
"""

_MINECRAFT = """\
import sys, mcstatus
getattr(mcstatus, sys.argv[2])("127.0.0.1", int(sys.argv[1])).status()
"""

_TINC = """\
Name = here
ConnectTo = there
DeviceType = dummy
AddressFamily = ipv4
"""


class RealClientTests(InteropTestCase):
    """One service, with a route for every protocol that there is a matcher for."""

    mux: ClassVar[Mux]
    port: ClassVar[str]
    address: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        """Start txmux."""
        super().setUpClass()
        routes = (_ROUTE.format(name=name) for name in _MATCHERS)
        cls.mux = Mux(cls.folder, "".join((_LISTEN, *routes)))
        cls.addClassCleanup(cls.mux.stop)
        cls.port = str(cls.mux.port)
        cls.address = f"127.0.0.1:{cls.port}"

    def lines(self) -> list[Record]:
        """Give all lines of the access log."""
        whole, _, _ = self.mux.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def assert_reaches(self, route: str, program: str, *arguments: str | Path) -> Record:
        """Run a client until it has said something, which must lead to this route, and give its line of the log."""
        before = len(self.lines())

        def spoken() -> list[Record]:
            return [line for line in self.lines()[before:] if line["bytes_in"]]

        client = Child(program, *arguments)
        try:
            eventually(lambda: bool(spoken()), f"{program} is led to a route")
        except AssertionError as error:
            raise AssertionError(f"{error}, and it said:\n{client.output}") from error
        finally:
            client.end()
        # Some clients try again and again. Their last connection came before this one, and so does its line.
        with self.mux.connect() as connected:
            last = "{}:{}".format(*connected.getsockname())
        eventually(lambda: last in {line["client"] for line in self.lines()}, "all is logged")
        found = spoken()
        self.assertEqual({(line["route"], line["reason"]) for line in found}, {(route, "denied")})
        return found[0]

    def test_openssh(self) -> None:
        """The client of OpenSSH."""
        line = self.assert_reaches(
            "ssh", "ssh", "-F", "none", "-oBatchMode=yes", "-p", self.port, "127.0.0.1", "true"
        )
        self.assertRegex(line["facts"]["software"], "^OpenSSH_")

    def test_curl_http(self) -> None:
        """HTTP/1.1, HTTP/2 without TLS, and HTTP/1.1 that offers to change to HTTP/2."""
        for route, version in (
            ("http", "--http1.1"),
            ("http2", "--http2-prior-knowledge"),
            ("http", "--http2"),
        ):
            self.assert_reaches(route, "curl", "-q", version, f"http://{self.address}/")

    def test_curl_https(self) -> None:
        """HTTP/2 and HTTP/1.1 inside TLS are told apart."""
        url = f"https://www.example.com:{self.port}/"
        resolved = f"www.example.com:{self.port}:127.0.0.1"
        for route, version in (("h2", "--http2"), ("tls", "--http1.1")):
            line = self.assert_reaches(route, "curl", "-q", version, "--resolve", resolved, url)
            self.assertEqual(line["facts"]["sni"], "www.example.com")

    def test_curl_others(self) -> None:
        """Other protocols that curl speaks, and proxies that it uses."""
        for route, *arguments in (
            ("ldap", f"ldap://{self.address}/dc=example"),
            ("mqtt", f"mqtt://{self.address}/topic"),
            ("rtsp", f"rtsp://{self.address}/stream"),
            ("proxy", "--haproxy-protocol", f"http://{self.address}/"),
            ("socks4", "--proxy", f"socks4://{self.address}", "http://127.0.0.1/"),
            ("socks4", "--proxy", f"socks4a://{self.address}", "http://www.example.com/"),
            ("socks5", "--proxy", f"socks5h://{self.address}", "http://www.example.com/"),
        ):
            self.assert_reaches(route, "curl", "-q", *arguments)

    def test_openssl(self) -> None:
        """The client of openssl, with and without TLS 1.3, and with HTTP/2."""
        for route, *options in (
            ("tls", "-servername", "www.example.com"),
            ("tls", "-tls1_2"),
            ("h2", "-alpn", "h2,http/1.1"),
        ):
            self.assert_reaches(route, "openssl", "s_client", "-connect", self.address, *options)

    def test_post_quantum_openssl(self) -> None:
        """The client of openssl with a post-quantum key exchange, if it has one."""
        if b"X25519MLKEM768" not in output_of("openssl", "list", "-kem-algorithms"):
            raise SkipTest("this openssl has no post-quantum key exchange")
        line = self.assert_reaches("tls", "openssl", "s_client", "-connect", self.address)
        self.assertGreater(line["bytes_in"], _ML_KEM_768)

    def test_post_quantum_library(self) -> None:
        """The OpenSSL that Twisted uses, with a post-quantum key exchange, if it has one."""
        if SSL.OPENSSL_VERSION_NUMBER < _OPENSSL_3_5:
            raise SkipTest(
                "the OpenSSL of the cryptography package has no post-quantum key exchange"
            )
        line = self.assert_reaches("tls", sys.executable, "-c", _TLS, self.port)
        self.assertGreater(line["bytes_in"], _ML_KEM_768)

    def test_psql(self) -> None:
        """The client of PostgreSQL, without and with TLS."""
        for mode in ("disable", "require"):
            settings = f"host=127.0.0.1 port={self.port} user=alice dbname=shop sslmode={mode}"
            self.assert_reaches("postgres", "psql", settings, "-c", "select 1")

    def test_redis_cli(self) -> None:
        """The client of Redis, with a command that memcached has, too."""
        self.assert_reaches("redis", "redis-cli", "-p", self.port, "get", "key")

    def test_openvpn(self) -> None:
        """A client of OpenVPN, with each way to protect the first packets."""
        certificate = make_certificate(self.folder, "vpn.example.com")
        shared, server, client = (
            self.folder / name for name in ("shared.key", "server.key", "client.key")
        )
        output_of("openvpn", "--genkey", "secret", shared)
        output_of("openvpn", "--genkey", "tls-crypt-v2-server", server)
        output_of("openvpn", "--tls-crypt-v2", server, "--genkey", "tls-crypt-v2-client", client)
        chain, key = certificate.chain, certificate.key
        options: tuple[str | Path, ...] = ("--ca", chain, "--cert", chain, "--key", key)
        remote = ("--remote", "127.0.0.1", self.port, "tcp-client")
        protections: tuple[tuple[str | Path, ...], ...] = (
            (),
            ("--tls-auth", shared, "1"),
            ("--tls-auth", shared, "1", "--auth", "SHA512"),
            ("--tls-crypt", shared),
            ("--tls-crypt-v2", client),
        )
        for protection in protections:
            self.assert_reaches(
                *("openvpn", "openvpn", "--client", "--dev", "null", "--nobind"),
                *(*remote, *options, *protection),
            )

    def test_mosquitto(self) -> None:
        """A client of MQTT, of every version."""
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            self.assert_reaches(
                *("mqtt", "mosquitto_pub", "-V", version, "-h", "127.0.0.1", "-p", self.port),
                *("-i", "sensor-7", "-t", "topic", "-m", "hello"),
            )

    def test_kcat(self) -> None:
        """A client of Kafka, which uses librdkafka."""
        self.assert_reaches("kafka", "kcat", "-b", self.address, "-L")

    def test_libmemcached(self) -> None:
        """Clients of memcached, with its text protocol and its binary one."""
        servers = f"--servers={self.address}"
        self.assert_reaches("memcached", "memcstat", servers)
        self.assert_reaches("memcached", "memccat", servers, "greeting")
        self.assert_reaches("memcached", "memccat", "--binary", servers, "greeting")

    def test_amqp(self) -> None:
        """A client of AMQP 0-9-1."""
        self.assert_reaches(
            *("amqp", "amqp-publish", "--server", "127.0.0.1", "--port", self.port),
            *("-r", "key", "-b", "hello"),
        )

    def test_ldapsearch(self) -> None:
        """A client of LDAP that binds, and one that begins with StartTLS."""
        for options in ("-x", "-xZZ"):
            self.assert_reaches("ldap", "ldapsearch", options, "-H", f"ldap://{self.address}/")

    def test_git(self) -> None:
        """Git, with a git:// URL."""
        line = self.assert_reaches("git", "git", "ls-remote", f"git://{self.address}/project.git")
        self.assertEqual(line["facts"]["path"], "/project.git")

    def test_rsync(self) -> None:
        """A client of an rsync daemon."""
        self.assert_reaches("rsync", "rsync", f"rsync://{self.address}/")

    def test_dig(self) -> None:
        """A question over TCP, and a transfer of a zone."""
        server = ("@127.0.0.1", "-p", self.port)
        for name, *options in (
            ("www.example.com", "+tcp"),
            ("example.com", "axfr"),
        ):
            line = self.assert_reaches("dns", "dig", "-r", *server, name, *options)
            self.assertEqual(line["facts"]["name"], name)

    def test_smbclient(self) -> None:
        """A client of SMB 2 and 3, and one of SMB 1."""
        smb1 = ("--option=client min protocol=CORE", "--option=client max protocol=NT1")
        for options in ((), smb1):
            self.assert_reaches(
                "smb", "smbclient", "-N", "-L", "127.0.0.1", "-p", self.port, *options
            )
