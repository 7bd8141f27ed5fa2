"""Real servers on free ports of 127.0.0.1, each with its configuration in a folder of the tests."""

import base64
import hashlib
import os
import pwd
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from tests.interop.children import Child, output_of, write
from tests.programs import require_program
from tests.support.certificates import Identity, make_authority
from tests.support.ports import free_port


@attrs.frozen
class Certificate:
    """A certificate that is its own authority: PEM files of it, of its key, and of both."""

    chain: Path
    key: Path
    both: Path

    @property
    def trusted(self) -> str:
        """The option by which Chromium trusts it."""
        certificate = load_pem_x509_certificate(self.chain.read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
        return f"--ignore-certificate-errors-spki-list={digest}"


def make_certificate(folder: Path, *names: str) -> Certificate:
    made = make_authority(names[0], *names)
    files = (folder / f"{names[0]}.{suffix}" for suffix in ("pem", "key", "both"))
    certificate = Certificate(*files)
    made.write(certificate.chain)
    certificate.key.write_bytes(made.key_pem())
    made.write(certificate.both, key=True)
    return certificate


@attrs.frozen
class Running:
    """A running server."""

    child: Child
    port: int

    def end(self) -> None:
        self.child.end()


@attrs.frozen
class SshServer(Running):
    """A running ``sshd``; by these options, ``ssh`` and ``scp`` log in by key and know it again at any port."""

    options: tuple[str, ...]


_SSHD = """\
ListenAddress {address}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
"""


def start_sshd(folder: Path, port: int | None = None, address: str = "127.0.0.1") -> SshServer:
    """Start an SSH server to which the user who runs the tests can log in."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what its service unit does
    for name in ("host", "user"):
        output_of("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    port = port or free_port()
    text = _SSHD.format(address=address, port=port, folder=folder)
    command = ("sshd", "-D", "-e", "-f", write(folder / "sshd_config", text))
    host_key = (folder / "host.pub").read_text()
    known_hosts = write(folder / "known_hosts", f"behind-txmux {host_key}")
    settings = {
        "BatchMode": "yes", "HostKeyAlias": "behind-txmux", "IdentitiesOnly": "yes",
        "IdentityAgent": "none", "IdentityFile": folder / "user",
        "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes",
        "User": pwd.getpwuid(os.geteuid()).pw_name, "UserKnownHostsFile": known_hosts,
    }  # fmt: skip
    options = ("-F", "none", *(f"-o{name}={value}" for name, value in settings.items()))
    return SshServer(Child(*command, ready="Server listening on"), port, options)


_NGINX = """\
http {{
    access_log off;
    default_type application/octet-stream;
    client_max_body_size 0;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    {lines}
}}
"""

_NGINX_MAIN = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
"""


def start_nginx(folder: Path, http: str) -> Child:
    return _start_nginx(folder, _nginx_main(folder) + _NGINX.format(folder=folder, lines=http))


def files_site(port: int, folder: Path) -> str:
    return f"server {{ listen 127.0.0.1:{port}; root {folder}; }}\n"


def site(place: str, said: str, more: str = "", certificate: Certificate | None = None) -> str:
    """Write a site that says something to all requests, over TLS if it has a certificate."""
    if certificate is not None:
        place = f"{place} ssl"
        more += f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};"
    return f'server {{ listen {place}; {more} location / {{ return 200 "{said}\\n"; }} }}\n'


def proxied_site(
    certificate: Certificate | None, said: str, more: str = "", port: int = 8443
) -> str:
    """Write a site that believes the PROXY header of this machine."""
    more += "set_real_ip_from 127.0.0.0/8; real_ip_header proxy_protocol;"
    return site(f"127.0.0.1:{port} proxy_protocol", said, more, certificate)


def start_nginx_stream(folder: Path, stream: str) -> Child:
    return _start_nginx(folder, nginx_stream(folder, stream))


def nginx_stream(folder: Path, lines: str) -> str:
    module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
    return f"{module}{_nginx_main(folder)}stream {{\n    {lines}\n}}\n"


def _nginx_main(folder: Path) -> str:
    return _NGINX_MAIN.format(user="user root;" if os.geteuid() == 0 else "", folder=folder)


def _start_nginx(folder: Path, text: str) -> Child:
    command = ("nginx", "-e", "stderr", "-p", folder, "-c", write(folder / "nginx.conf", text))
    return Child(*command, ready="start worker process ")


DNSMASQ = (
    *("dnsmasq", "--keep-in-foreground", "--log-facility=-"),
    *("--conf-file=/dev/null", "--user=", "--pid-file="),
)


def start_dnsmasq(hosts: Path, *options: str) -> Child:
    """Start a name server for what is in a file of hosts, which it reads again on SIGHUP; its answers hold for 1 s."""
    own = ("--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--local-ttl=1", "--local=/test/")
    bound = ("--listen-address=127.0.0.1", "--bind-interfaces")
    return Child(*DNSMASQ, *own, *bound, *options, ready=r"read .*hosts")


_HAPROXY = """\
defaults
    mode http
    timeout client 3m
    timeout connect 3m
    timeout server 3m
{frontends}
"""


def start_haproxy(folder: Path, frontends: str) -> Child:
    file = write(folder / "haproxy.cfg", _HAPROXY.format(frontends=frontends))
    return Child("haproxy", "-W", "-db", "-f", file, ready="Loading success")


def start_sslh(folder: Path, lines: str, program: str = "sslh") -> Child:
    """Start a proxy with these settings, as one of its two programs: ``sslh`` or ``sslh-select``."""
    file = write(folder / "sslh.cfg", f"numeric: true;\nforeground: true;\n{lines}")
    return Child(program, f"-F{file}", ready="started")


@attrs.frozen
class RedisServer(Running):
    """A running ``redis-server``, with its UNIX socket, and the file of its password."""

    socket: Path
    password: Path | None

    def ask(self, *words: str, stdin: bytes = b"") -> str:
        own = self.password.read_text().strip() if self.password else ""
        login = ("-a", own, "--no-auth-warning") if own else ()
        return output_of("redis-cli", "-s", self.socket, *login, *words, stdin=stdin).decode()


def start_redis(
    folder: Path, port: int | None = None, identity: Identity | None = None, password: str = ""
) -> RedisServer:
    """Start a Redis server that keeps everything in memory; over TLS, if it has an identity, it wants no certificate of clients."""
    port, socket = port or free_port(), folder / "redis.sock"
    ports: tuple[str | Path, ...] = ("--port", str(port))
    known = write(folder / "password", f"{password}\n", 0o600) if password else None
    if identity is not None:
        file = identity.write(folder / "redis.pem", key=True)
        files = ("--tls-cert-file", file, "--tls-key-file", file, "--tls-ca-cert-file", file)
        ports = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *files)
        ports = (*ports, "--loglevel", "verbose")  # which tells of clients that break off
    own = ("--bind", "127.0.0.1", "--unixsocket", socket, "--save", "", "--dir", folder)
    ready = "[Rr]eady to accept connections"
    child = Child("redis-server", *ports, *own, "--requirepass", password, ready=ready)
    return RedisServer(child, port, socket, known)


def start_mariadb(folder: Path, *options: str, address: str = "127.0.0.1") -> Child:
    """Start a database server on port 3306 of an address; its user ``tests`` needs no password."""
    own: tuple[str | Path, ...] = ("--no-defaults", f"--datadir={folder}/data")
    if os.geteuid() == 0:
        own = (*own, "--user=root")
    output_of("mariadb-install-db", *own, "--auth-root-authentication-method=normal")
    first = write(folder / "first.sql", "CREATE USER tests@'%';\n")
    own = (*own, f"--init-file={first}", f"--socket={folder}/socket")
    there = (f"--bind-address={address}", "--port=3306", "--skip-name-resolve")
    return Child("mariadbd", *own, *there, *options, ready="ready for connections")


def postgres_program(name: str) -> Path:
    """Find a program of the PostgreSQL server, which Debian keeps away from the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else Path(require_program(name))


def start_postgres(folder: Path, port: int, **more: str | Path) -> Child:
    """Start a server that asks everybody for a password; the one of ``postgres`` is ``secret``."""
    password = write(folder / "password", "secret\n")
    access = ("-A", "scram-sha-256", "-U", "postgres", "--pwfile", password)
    made = ("--no-sync", "--locale=C", "-D", folder / "data")
    output_of(*_as_nobody(folder, "initdb"), *made, *access)
    return restart_postgres(folder, port, **more)


def _as_nobody(folder: Path, name: str) -> tuple[str, ...]:
    """Give the command of a program of PostgreSQL, which refuses to be root, and let it use a folder."""
    if os.geteuid():
        return (str(postgres_program(name)),)
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    ids = f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"
    return (require_program("setpriv"), *ids, "--clear-groups", str(postgres_program(name)))


def restart_postgres(folder: Path, port: int, **more: str | Path) -> Child:
    settings = {
        "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
        "fsync": "off", "log_connections": "on", "log_disconnections": "on", **more,
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    before, ready = _as_nobody(folder, "postgres"), "ready to accept connections"
    return Child(*before, "-D", folder / "data", *options, ready=ready)
