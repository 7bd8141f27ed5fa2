"""Examples with one port for many: `ssh-https.ini`, `inside-tls.ini`, `https-and-tunnel.ini`, `first-bytes.ini`, `server-speaks-first.ini`."""

import os
import re
import shlex
import socket
import ssl
from pathlib import Path

from tests.interop import servers
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.support.kit import PATIENCE, Child, Record, eventually, output_of, require_program, write

_CLIENT = "203.0.113.7"
_PUBLIC = "203.0.113.1"
_NAME = "www.example.com"


def page(authority: Path, client: str) -> str:
    """Return a page over TLS, which a client of this address asks for."""
    options = ("--cacert", authority, "--interface", client, "--resolve", f"{_NAME}:443:{_PUBLIC}")
    return output_of("curl", "-q", "-sS", *options, f"https://{_NAME}/").decode()


# A WebSocket client of Debian's, which speaks for Debian's Python only.
_WEBSOCKET = """
import socket, ssl, sys, websocket
address, name, authority = sys.argv[1:]
secure = ssl.create_default_context(cafile=authority)
inside = secure.wrap_socket(socket.create_connection((address, 443)), server_hostname=name)
tunnel = websocket.create_connection(f"wss://{name}/tunnel", socket=inside, timeout=180)
tunnel.send_binary(b"PING\\r\\n")
sys.stdout.buffer.write(tunnel.recv())
tunnel.close()
"""


class SitesTests(ScenarioTestCase):
    addresses = (_CLIENT, _PUBLIC)

    def test_ssh_over_443(self) -> None:
        """SSH, a site that is told the client's address, and OpenVPN."""
        certificate = servers.make_certificate(self.folder, _NAME)
        ssh = self.own(servers.start_sshd(self.folder, 22))
        site = servers.proxied_site(certificate, "$remote_addr")
        self.own(servers.start_nginx(self.folder, site))
        credentials = ("--cert", certificate.chain, "--key", certificate.key)
        vpn = ("openvpn", "--dev", "null", "--ca", certificate.chain, *credentials)
        server = ("--tls-server", "--dh", "none", "--proto", "tcp-server", "--local", "127.0.0.1")
        ready = "Listening for incoming TCP connection"
        self.own(Child(*vpn, *server, "--port", "1194", ready=ready))
        logs = {"/var/log": self.make_folder("log")}
        log = self.make_folder("log/txmux") / "access.log"
        self.mux = self.own(Example(EXAMPLES / "ssh-https.ini", logs, log))
        options = (*ssh.options, "-b", _CLIENT, "-p", "443")
        self.assertEqual(output_of("ssh", *options, _PUBLIC, "echo hello"), b"hello\n")
        self.assertEqual(self.logged(), (_CLIENT, "ssh-server", "done"))
        self.assertEqual(page(certificate.chain, _CLIENT), f"{_CLIENT}\n")
        self.assertEqual(self.logged(), (_CLIENT, "web", "done"))
        there = ("--tls-client", "--proto", "tcp-client", "--remote", _PUBLIC, "443", "--nobind")
        Child(*vpn, *there, ready="Initialization Sequence Completed").end()
        self.assertEqual(self.logged()[:2], (_PUBLIC, "vpn"))

    def logged(self) -> tuple[str, str, str]:
        line = self.mux.take_one()
        return (line["client"].rpartition(":")[0], line["backend"], line["reason"])

    def assert_logged(self, route: str, port: int) -> None:
        line = self.mux.take_one()
        found = (line["route"], line["server"], line["facts"]["sni"])
        self.assertEqual(found, (route, f"127.0.0.1:{port}", _NAME))

    def test_inside_tls(self) -> None:
        """What websockify leads to is Redis here: a browser, whose address the site knows, a client of WebSocket, and SSH, also before it says anything."""
        require_program("wsdump")  # it is of the same package as the client of WebSocket
        certificates, own = self.make_folder("ssl"), self.make_folder("ssl/example.com")
        certificate = servers.make_certificate(own, _NAME)
        authority = certificate.chain.rename(own / "fullchain.pem")
        certificate.key.rename(own / "privkey.pem")
        site = servers.proxied_site(None, "$remote_addr", port=8080)
        self.own(servers.start_nginx(self.folder, site))
        ssh = self.own(servers.start_sshd(self.make_folder(), 22))
        self.own(servers.start_redis(self.folder, 6379))
        websockify = ("websockify", "-v", "127.0.0.1:6080", "127.0.0.1:6379")
        self.own(Child(*websockify, ready="proxying from"))
        self.mux = self.own(Example(EXAMPLES / "inside-tls.ini", {"/etc/ssl": certificates}))
        self.assertEqual(page(authority, _CLIENT), f"{_CLIENT}\n")
        self.assert_logged("site", 8080)
        said = output_of("/usr/bin/python3", "-c", _WEBSOCKET, _PUBLIC, _NAME, authority)
        self.assertEqual(said, b"+PONG\r\n")
        self.assert_logged("tunnel", 6080)
        words = ("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile")
        proxy = shlex.join((*words, str(authority), "-servername", _NAME))
        options = (*ssh.options, f"-oProxyCommand={proxy} -connect {_PUBLIC}:443")
        self.assertEqual(output_of("ssh", *options, _NAME, "echo hello"), b"hello\n")
        self.assert_logged("ssh", 22)
        context = ssl.create_default_context(cafile=authority)
        plain = socket.create_connection((_PUBLIC, 443), PATIENCE)
        with context.wrap_socket(plain, server_hostname=_NAME) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        self.assert_logged("secure", 22)


_BROWSER = "198.51.100.7"
_TUNNELS = ("192.0.2.10", "192.0.2.11")
_SECRET = ("-k", "a secret of the tests", "-m", "chacha20-ietf-poly1305", "-t", "600")


class HttpsAndTunnelTests(ScenarioTestCase):
    addresses = (_BROWSER, "198.51.100.80", _PUBLIC, *_TUNNELS)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = servers.make_certificate(cls.folder, _NAME)
        log = f"access_log {cls.folder}/clients.log client;"
        site = servers.proxied_site(cls.certificate, "the site", log)
        site += servers.site("198.51.100.80:80", "beyond the tunnel")
        form = 'log_format client "$remote_addr $ssl_server_name";\n'
        cls.share(servers.start_nginx(cls.folder, form + site))
        tunnel = ("ss-local", "-s", _PUBLIC, "-p", "443", "-l", "1080", *_SECRET)
        cls.share(Child(*tunnel, ready="listening at"))

    def start_mux(self) -> None:
        self.mux = self.own(Example(EXAMPLES / "https-and-tunnel.ini"))

    def start_server(self, address: str) -> Child:
        command = ("ss-server", "-s", address, "-p", "8388", "-v", *_SECRET)
        return self.own(Child(*command, ready="tcp server listening at"))

    def through_the_tunnel(self) -> str:
        options = ("-q", "-sS", "--noproxy", "", "--socks5", "127.0.0.1:1080")
        said = output_of("curl", *options, "http://198.51.100.80/")
        self.assertEqual(said, b"beyond the tunnel\n")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["backend"]), ("-", "tunnel"))
        return str(line["server"])

    def test_site_and_tunnel_with_a_backup(self) -> None:
        """The site logs the client's address. The tunnel's clients reach the first server; while it is down the second one, and afterwards the first again."""
        old, _ = (self.start_server(address) for address in _TUNNELS)
        self.start_mux()
        self.assertEqual(page(self.certificate.chain, _BROWSER), "the site\n")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["reason"]), ("site", "done"))
        self.assertTrue(line["client"].startswith(f"{_BROWSER}:"))
        log = self.folder / "clients.log"
        self.assertEqual(log.read_text(), f"{_BROWSER} www.example.com\n")
        first, second = (f"{address}:8388" for address in _TUNNELS)
        self.assertEqual([self.through_the_tunnel() for _ in range(3)], 3 * [first])
        old.end()
        self.assertEqual(self.through_the_tunnel(), second)
        self.mux.child.wait_for(f"backend tunnel: {first} is down")
        self.assertEqual(self.through_the_tunnel(), second)
        self.start_server(_TUNNELS[0])
        self.mux.child.wait_for(f"backend tunnel: {first} is up")
        self.assertEqual(self.through_the_tunnel(), first)

    def test_silent_client_reaches_the_tunnel(self) -> None:
        self.own(servers.start_sshd(self.folder, 8388, _TUNNELS[0]))
        self.start_mux()
        with socket.create_connection((_PUBLIC, 443), PATIENCE) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        self.assertEqual(self.mux.take_fields("backend", "bytes_in"), ("tunnel", "0"))


_PLAIN_SITE = servers.site("127.0.0.1:8080", "the site")


class FirstBytesTests(ScenarioTestCase):
    def test_each_reaches_its_server(self) -> None:
        """By one of the beginnings of Gearman, a worker and a client find each other; an administrator uses another."""
        self.own(servers.start_nginx(self.folder, _PLAIN_SITE))
        server = self.own(servers.start_sshd(self.folder, 22))
        self.own(servers.start_redis(self.folder, 6379))
        self.own(servers.start_postgres(self.make_folder("postgres"), 5432))
        options = ("--listen=127.0.0.1", "--log-file=stderr", "--verbose=INFO")
        self.own(Child("gearmand", *options, ready="Listening on"))
        mux = self.own(Example(EXAMPLES / "first-bytes.ini"))
        ssh = ("ssh", *server.options, "-p", "9000", "127.0.0.1", "echo hello")
        place = "postgresql://postgres:secret@127.0.0.1:9000/postgres?sslmode=disable"
        for route, port, said, command in (
            ("web", 8080, b"the site\n", ("curl", "-q", "-sS", "http://127.0.0.1:9000/")),
            ("ssh", 22, b"hello\n", ssh),
            ("cache", 6379, b"PONG\n", ("redis-cli", "-p", "9000", "PING")),
            ("database", 5432, b"42\n", ("psql", "-X", "-At", "-c", "SELECT 6 * 7", place)),
        ):
            self.assertEqual(output_of(*command), said)
            self.assertEqual(mux.take_fields("route", "server"), (route, f"127.0.0.1:{port}"))
        there = ("-h", "127.0.0.1", "-p", "9000", "-f", "shout")
        worker = Child("gearman", *there, "-w", "-c", "1", "--", "tr", "a-z", "A-Z")
        self.assertEqual(output_of("gearman", *there, "hello"), b"HELLO")
        worker.end()
        # Its server may not have heard yet that the worker is gone.
        asked = ("gearadmin", "--host=127.0.0.1", "--port=9000", "--status")
        answers = []

        def knows() -> bool:
            answers.append(output_of(*asked))
            return answers[-1] == b"shout\t0\t0\t0\n.\n"

        eventually(knows, "the server knows that the worker is gone")
        for line in mux.take(2 + len(answers)):
            self.assertEqual((line["route"], line["server"]), ("jobs", "127.0.0.1:4730"))


_FTP = """\
listen=YES
listen_address=192.0.2.1
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={folder}
secure_chroot_dir={folder}
seccomp_sandbox=NO
pasv_min_port=50000
pasv_max_port=50009
pasv_promiscuous=YES
"""

_GREETING = "192.0.2.1"
_CLIENTS = {"192.0.2.11": "10.1.0.5", "192.0.2.12": "10.2.0.5", "192.0.2.13": "10.3.0.5"}


class ServerSpeaksFirstTests(ScenarioTestCase):
    addresses = (_GREETING, _CLIENT, *_CLIENTS, *_CLIENTS.values())

    def assert_logged(self, field: str, value: str, client: str) -> Record:
        line = self.mux.take_one()
        self.assertEqual((line[field], line["client"].rpartition(":")[0]), (value, client))
        return line

    def test_each_reaches_its_server(self) -> None:
        """MariaDB knows the client's address, a picture comes by VNC, mail is delivered, and files are fetched by FTP. A browser waits for nothing."""
        # Each client that cannot be told to use its own address has another one to connect to.
        for address, client in _CLIENTS.items():
            self.network.ip(f"route replace local {address} dev lo src {client} table local")
        proxies = "--proxy-protocol-networks=127.0.0.1"
        self.own(servers.start_mariadb(self.make_folder("database"), proxies))
        files = self.make_folder("files")
        self.own(Child("vsftpd", write(self.folder / "vsftpd.conf", _FTP.format(folder=files))))
        where = ("-displayfd", "1", "-rfbport", "5900", "-interface", "127.0.0.1")
        how = ("-SecurityTypes", "None", "-geometry", "320x200", "-depth", "24")
        self.own(Child("Xtigervnc", *where, *how, ready="Listening for VNC connections"))
        smtp = (require_program("aiosmtpd"), "-n", "-dd", "-l", "127.0.0.1:25")
        mail = self.own(Child("env", "PYTHONUNBUFFERED=1", *smtp, ready="Starting asyncio loop"))
        self.mux = self.own(Example(EXAMPLES / "server-speaks-first.ini"))

        there = ("--no-defaults", "--protocol=tcp", "-h", "192.0.2.11", "-P", "443")
        said = output_of("mariadb", *there, "-u", "tests", "-N", "-e", "SELECT user()")
        self.assertEqual(said, b"tests@10.1.0.5\n")
        self.assert_logged("backend", "mysql", "10.1.0.5")

        picture = self.folder / "picture.jpg"
        # It adds 5900 to what it calls a display, and takes the sum for a port, which has 16 bits.
        display = 443 - 5900 + 2**16
        options = ("-quiet", "-allowblank", "-encodings", "hextile")
        output_of("vncsnapshot", *options, f"192.0.2.12:{display}", picture)
        self.assertTrue(picture.read_bytes().startswith(b"\xff\xd8\xff"))
        self.assert_logged("backend", "vnc", "10.2.0.5")

        curl = ("curl", "-q", "-sS", "smtp://192.0.2.13:443", "--upload-file", "-")
        to = ("--mail-from", "a@example.com", "--mail-rcpt", "b@example.com")
        output_of(*curl, *to, stdin=b"Subject: greetings\r\n\r\nhello\r\n")
        mail.wait_for("^Subject: greetings$")
        self.assert_logged("backend", "smtp", "10.3.0.5")

        # In both kinds of passive mode, the bytes of a file do not come through txmux.
        content = os.urandom(2**20)
        (files / "file").write_bytes(content)
        curl = ("curl", "-q", "-sS", "--interface", _CLIENT, f"ftp://{_GREETING}:443/file")
        for mode in (("--disable-epsv",), ()):
            self.assertEqual(output_of(*curl, *mode), content)
            line = self.assert_logged("backend", "ftp", _CLIENT)
            self.assertEqual(line["reason"], "done")
            self.assertLess(int(line["bytes_out"]), 2**12)

        # On a busy machine, a browser may need more than half a second to say something.
        self.mux.end()
        self.own(servers.start_nginx(self.folder, _PLAIN_SITE))
        rules = (EXAMPLES / "server-speaks-first.ini").read_text()
        patient = re.sub(r"after=\w+", "after=1h", rules)
        self.mux = self.own(Example(write(self.folder / "patient.ini", patient)))
        for address, client in _CLIENTS.items():
            said = output_of("curl", "-q", "-sS", f"http://{address}:443/")
            self.assertEqual(said, b"the site\n")
            self.assert_logged("route", "http", client)
