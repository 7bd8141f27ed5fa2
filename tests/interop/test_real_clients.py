"""Clients of all kinds: each reaches its route on a port that all share, in the order of the reference."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from OpenSSL import SSL

from tests.interop.children import Child, InteropTestCase, eventually, output_of, run
from tests.matchers.searching import order
from tests.support.kit import Record, Service, free_port, make_certificate, require_program

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


def _reaches(*rows: tuple[Any, ...]) -> Callable[["RealClientTests"], None]:
    """Have a test run commands: each row has its route, what is typed, and regular expressions for facts."""

    def test(self: "RealClientTests") -> None:
        for route, command, *facts in rows:
            typed = command.format(address=self.address, port=self.port)
            line = self.assert_reaches(route, *shlex.split(typed))
            found = {name: str(line["facts"].get(name)) for name in dict(*facts)}
            wrong = [name for name, its in found.items() if not re.fullmatch(facts[0][name], its)]
            self.assertEqual(wrong, [], line)

    return test


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

_MINECRAFT = """\
import sys, mcstatus
getattr(mcstatus, sys.argv[2])("127.0.0.1", int(sys.argv[1])).status()
"""

_DIAMETER = """\
Identity = "peer.example.com";
Realm = "example.com";
Port = 0;
SecPort = 0;
No_SCTP;
ListenOn = "127.0.0.1";
TLS_Cred = "{chain}", "{key}";
TLS_CA = "{chain}";
ConnectPeer = "other.example.com" {{ ConnectTo = "127.0.0.1"; Port = {port}; No_TLS; }};
"""

_TINC = """\
Name = here
ConnectTo = there
DeviceType = dummy
AddressFamily = ipv4
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

_PSQL = "psql 'host=127.0.0.1 port={{port}} user=alice dbname=shop sslmode={}' -c 'select 1'"
_SMB = "smbclient -N -L 127.0.0.1 -p {port}"
_MOSQUITTO = "mosquitto_pub -V {} -h 127.0.0.1 -p {{port}} -i s -t topic -m hello"
_DEBIANS_PYTHON = "/usr/bin/python3"
"""What Debian's Python packages are for."""


class RealClientTests(InteropTestCase):
    """Programs and libraries as Debian and PyPI have them; the routes of the service close the connection, so that nothing but detection is tested."""

    port: ClassVar[str]
    address: ClassVar[str]
    addresses: ClassVar[Iterator[int]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.addresses = count(1)
        routes = (_ROUTE.format(name=name) for name in order())
        cls.mux = cls.share(Service(cls.folder, "".join((_LISTEN, *routes))))
        cls.port = str(cls.mux.port)
        cls.address = f"127.0.0.1:{cls.port}"

    def assert_reaches(self, route: str, program: str, *arguments: str | Path) -> Record:
        """Run a client until it has said something, which must lead to this route, and give its line of the log."""
        before = len(self.mux.lines())

        def spoken() -> list[Record]:
            return [line for line in self.mux.lines()[before:] if line["bytes_in"]]

        client = Child(program, *arguments)
        try:
            eventually(lambda: bool(spoken()), f"{program} is led to a route")
        except AssertionError as error:
            raise AssertionError(f"{error}, and it said:\n{client.output}") from error
        finally:
            client.end()
        # Some clients try again and again. Their last connection came before this one, and so does its line,
        # at once: those of one address that say nothing either share a line a second.
        with self.mux.connect(f"127.0.1.{next(self.addresses)}") as connected:
            last = "{}:{}".format(*connected.getsockname())
        eventually(lambda: last in {line["client"] for line in self.mux.lines()}, "all is logged")
        found = spoken()
        self.assertEqual({(line["route"], line["reason"]) for line in found}, {(route, "denied")})
        return found[0]

    test_rsync = _reaches(("rsync", "rsync rsync://{address}/"))
    test_iperf3 = _reaches(("iperf3", "iperf3 -c 127.0.0.1 -p {port}"))
    test_sipsak = _reaches(("sip", "sipsak -E tcp -s sip:alice@{address}"))
    test_smbclient_of_smb_1_to_3 = _reaches(
        ("smb", _SMB), ("smb", f"{_SMB} '--option=client min protocol=CORE' '--option=client max protocol=NT1'"),
    )  # fmt: skip
    test_spice_gtk = _reaches(("spice", "spicy-screenshot -h 127.0.0.1 -p {port}"))
    test_logger_with_lines_and_octet_counts = _reaches(
        ("syslog", "logger --tcp --server 127.0.0.1 --port {port} hello"),
        ("syslog", "logger --tcp --server 127.0.0.1 --port {port} --octet-count hello"),
    )
    test_openssh = _reaches(
        ("ssh", "ssh -F none -oBatchMode=yes -p {port} 127.0.0.1 true", {"software": "OpenSSH_.*"})
    )
    test_curl = _reaches(
        ("http", "curl -q --http1.1 http://{address}/"),
        ("http2", "curl -q --http2-prior-knowledge http://{address}/"),
        ("http", "curl -q --http2 http://{address}/"),
        *((route, f"curl -q {version} --resolve www.example.com:{{port}}:127.0.0.1 https://www.example.com:{{port}}/",
           {"sni": "www.example.com"}) for route, version in (("h2", "--http2"), ("tls", "--http1.1"))),
        ("ldap", "curl -q --noproxy '' ldap://{address}/dc=example"),
        ("mqtt", "curl -q --noproxy '' mqtt://{address}/topic"),
        ("rtsp", "curl -q --noproxy '' rtsp://{address}/stream"),
        ("proxy", "curl -q --noproxy '' --haproxy-protocol http://{address}/"),
        ("socks4", "curl -q --noproxy '' --proxy socks4://{address} http://127.0.0.1/"),
        ("socks4", "curl -q --noproxy '' --proxy socks4a://{address} http://www.example.com/"),
        ("socks5", "curl -q --noproxy '' --proxy socks5h://{address} http://www.example.com/"),
    )  # fmt: skip
    test_openssl = _reaches(
        ("tls", "openssl s_client -connect {address} -servername www.example.com"),
        ("tls", "openssl s_client -connect {address} -tls1_2"),
        ("h2", "openssl s_client -connect {address} -alpn h2,http/1.1"),
    )

    def test_post_quantum_openssl(self) -> None:
        if b"X25519MLKEM768" not in output_of("openssl", "list", "-kem-algorithms"):
            raise SkipTest("this openssl has no post-quantum key exchange")
        line = self.assert_reaches("tls", "openssl", "s_client", "-connect", self.address)
        self.assertGreater(line["bytes_in"], _ML_KEM_768)

    def test_post_quantum_library_of_twisted(self) -> None:
        if SSL.OPENSSL_VERSION_NUMBER < _OPENSSL_3_5:
            why = "has no post-quantum key exchange"
            raise SkipTest(f"the OpenSSL of the cryptography package {why}")
        line = self.assert_reaches("tls", sys.executable, "-c", _TLS, self.port)
        self.assertGreater(line["bytes_in"], _ML_KEM_768)

    def test_openvpn_with_each_protection(self) -> None:
        certificate = make_certificate(self.folder, "vpn.example.com")
        names = ("shared", "server", "client")
        shared, server, client = (self.folder / f"{name}.key" for name in names)
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
            command = ("openvpn", "--client", "--dev", "null", "--nobind", *remote)
            self.assert_reaches("openvpn", *command, *options, *protection)

    def test_tinc(self) -> None:
        folder = self.folder / "tinc"
        (folder / "hosts").mkdir(parents=True)
        (folder / "tinc.conf").write_text(_TINC)
        output_of("tincd", "-c", folder, "-K2048")
        # Its own port is one that the tests of others may have.
        with (folder / "hosts/here").open("a") as own:
            own.write(f"Port = {free_port()}\n")
        (folder / "hosts/there").write_text(f"Address = 127.0.0.1 {self.port}\n")
        pid_file = f"--pidfile={folder / 'pid'}"
        self.assert_reaches("tinc", "tincd", "-c", folder, pid_file, "--no-detach")

    test_libiscsi_discovery_and_disk = _reaches(
        ("iscsi", "iscsi-ls iscsi://{address}", {"target": "None", "initiator": ".*:iscsi-ls"}),
        ("iscsi", "iscsi-inq iscsi://{address}/iqn.x:d/1", {"target": "iqn.x:d", "initiator": ".*:iscsi-inq"}),
    )  # fmt: skip

    def test_freediameter(self) -> None:
        certificate = make_certificate(self.folder, "peer.example.com")
        rules = self.folder / "diameter.conf"
        own = {"chain": certificate.chain, "key": certificate.key}
        rules.write_text(_DIAMETER.format(**own, port=self.port))
        line = self.assert_reaches("diameter", "freeDiameterd", "-c", rules)
        self.assertEqual(line["facts"]["origin_realm"], "example.com")

    test_git = _reaches(("git", "git ls-remote git://{address}/a.git", {"path": "/a.git"}))
    test_dig_by_tcp_and_axfr = _reaches(
        ("dns", "dig -r @127.0.0.1 -p {port} www.example.com +tcp", {"name": "www.example.com"}),
        ("dns", "dig -r @127.0.0.1 -p {port} example.com axfr", {"name": "example.com"}),
    )

    def test_xfreerdp(self) -> None:
        xfreerdp = require_program("xfreerdp")
        screen = self.own(Child("Xvfb", "-displayfd", "1", "-nolisten", "tcp"))
        display = f"DISPLAY=:{screen.wait_for('^[0-9]+$')[0]}"
        words = (f"/v:{self.address}", "/u:alice", "/p:secret", "/cert:ignore", "+auth-only")
        line = self.assert_reaches("rdp", "env", display, xfreerdp, *words)
        self.assertEqual(line["facts"]["cookie"], "alice")

    def test_x11(self) -> None:
        """A client of X11: xfreerdp, whose display is behind the shared port."""
        display = f"DISPLAY=127.0.0.1:{self.mux.port - 6000}"  # displays count from that port
        self.assert_reaches("x11", "env", display, require_program("xfreerdp"), "/v:127.0.0.1")

    def test_minecraft_of_today_and_1_6(self) -> None:
        for client in ("JavaServer", "LegacyServer"):
            self.assert_reaches("minecraft", sys.executable, "-c", _MINECRAFT, self.port, client)

    test_psql_with_and_without_tls = _reaches(
        *(("postgres", _PSQL.format(mode)) for mode in ("disable", "require"))
    )
    test_redis_cli_with_a_command_of_memcached = _reaches(("redis", "redis-cli -p {port} get key"))
    test_libmemcached_text_and_binary = _reaches(
        ("memcached", "memcstat --servers={address}"),
        ("memcached", "memccat --servers={address} greeting"),
        ("memcached", "memccat --binary --servers={address} greeting"),
    )
    test_mosquitto_of_every_version = _reaches(
        *(("mqtt", _MOSQUITTO.format(one)) for one in ("mqttv31", "mqttv311", "mqttv5"))
    )
    test_amqp = _reaches(("amqp", "amqp-publish --server 127.0.0.1 --port {port} -r key -b hello"))
    test_kcat = _reaches(("kafka", "kcat -b {address} -L -m 5"))
    test_ldapsearch_bind_and_starttls = _reaches(
        *(("ldap", f"ldapsearch {how} -H ldap://{{address}}/") for how in ("-x", "-xZZ"))
    )

    def test_pymongo_with_and_without_api_version(self) -> None:
        for options in ((), ("api",)):
            self.assert_reaches("mongodb", sys.executable, "-c", _MONGODB, self.port, *options)

    def test_cassandra(self) -> None:
        if run(_DEBIANS_PYTHON, "-c", "import cassandra").returncode:
            raise SkipTest("python3-cassandra is not installed")
        self.assert_reaches("cassandra", _DEBIANS_PYTHON, "-c", _CASSANDRA, self.port)

    def test_tsql(self) -> None:
        tsql = require_program("tsql")
        # Without a version it would try older ones, too, which have no pre-login.
        words = ("-H", "127.0.0.1", "-p", self.port, "-U", "sa", "-P", "secret")
        self.assert_reaches("tds", "env", "TDSVER=7.4", tsql, *words)
