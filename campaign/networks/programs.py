"""What clients of real servers do through txmux; each sees to it that all bytes arrive as they were sent."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from campaign.networks.path import MUX
from campaign.networks.site import ENDED, PASSED, PORT, FileServers, Site
from tests.interop.children import Child
from tests.interop.datagrams.tunnels import exchange
from tests.interop.quic.case import require_curl
from tests.interop.quic.content import content
from tests.support.certificates import make_authority

_IN_TUNNEL = 300_000
_LINES = 20

_CURL_H3 = """
import sys
from curl_cffi import Curl, CurlOpt
from curl_cffi.const import CurlHttpVersion

host, port, count = sys.argv[1:]
curl = Curl()
curl.setopt(CurlOpt.URL, f"https://site.example.com:{port}/{count}".encode())
curl.setopt(CurlOpt.RESOLVE, [f"site.example.com:{port}:{host}".encode()])
curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
curl.setopt(CurlOpt.SSL_VERIFYPEER, 0)
curl.setopt(CurlOpt.SSL_VERIFYHOST, 0)
curl.setopt(CurlOpt.WRITEDATA, sys.stdout.buffer)
curl.perform()
"""


def _check(name: str, got: bytes, wanted: bytes) -> int:
    """See to it that what came is what was sent, and give its length."""
    if hashlib.sha256(got).digest() != hashlib.sha256(wanted).digest():
        raise AssertionError(
            f"{name}: {len(got)} bytes came, which are not the {len(wanted)} that were sent"
        )
    return len(got)


def scp_up(servers: FileServers) -> int:
    """Copy the file to the SSH server."""
    there = servers.folder / "there"
    there.unlink(missing_ok=True)
    _run_scp(servers, servers.original, f"{MUX}:{there}")
    return _check("scp", there.read_bytes(), servers.data)


def scp_down(servers: FileServers) -> int:
    """Copy it from there."""
    back = servers.folder / "back"
    back.unlink(missing_ok=True)
    _run_scp(servers, f"{MUX}:{servers.original}", back)
    return _check("scp", back.read_bytes(), servers.data)


def _run_scp(servers: FileServers, *files: str | Path) -> None:
    servers.path.run("scp", "-q", *servers.ssh.options, "-P", str(PORT), *files)


def ssh_lines(servers: FileServers) -> int:
    """Log in, and say lines, each of which has to come back before the next one."""
    to = ("ssh", *servers.ssh.options, "-p", str(PORT), MUX, "cat")
    child = Child(*servers.path.clients.command, *to, stdin=True)
    said = 0
    try:
        assert child.process.stdin is not None
        for number in range(_LINES):
            line = f"line {number} {servers.data[number : number + 20].hex()}"
            child.process.stdin.write(f"{line}\n".encode())
            child.process.stdin.flush()
            child.wait_for(f"^{line}$")
            said += len(line) + 1
    finally:
        child.end()
    return said


def _scp(site: Site) -> int:
    return scp_up(site) + scp_down(site)


def _curl_up(servers: FileServers, name: str, url: str, *options: str) -> int:
    given = servers.folder / "web" / name
    given.unlink(missing_ok=True)
    _run_curl(servers, *options, "--upload-file", servers.original, f"{url}/{name}")
    return _check(name, given.read_bytes(), servers.data)


def _curl_down(servers: FileServers, name: str, url: str, *options: str) -> int:
    back = servers.folder / f"back-{name}"
    back.unlink(missing_ok=True)
    _run_curl(servers, *options, "--output", back, f"{url}/original")
    return _check(name, back.read_bytes(), servers.data)


def _run_curl(servers: FileServers, *arguments: str | Path) -> None:
    names = ("--resolve", f"{PASSED}:{PORT}:{MUX}", "--resolve", f"{ENDED}:{PORT}:{MUX}")
    trusted = ("--cacert", servers.certificate.chain)
    servers.path.run("curl", "-q", "-sS", "--fail", *trusted, *names, *arguments)


_PASSED = ("passed", f"https://{PASSED}:{PORT}", "--http2")


def https_up(servers: FileServers) -> int:
    """Give the file to the web server, by TLS that goes all the way."""
    return _curl_up(servers, *_PASSED)


def https_down(servers: FileServers) -> int:
    """Get it from there."""
    return _curl_down(servers, *_PASSED)


def _curl(site: Site, name: str, url: str, *options: str) -> int:
    return _curl_up(site, name, url, *options) + _curl_down(site, name, url, *options)


def _https_passed(site: Site) -> int:
    return _curl(site, *_PASSED)


def _https_ended(site: Site) -> int:
    return _curl(site, "ended", f"https://{ENDED}:{PORT}", "--http1.1")


def _http(site: Site) -> int:
    return _curl(site, "plain", f"http://{MUX}:{PORT}")


def _redis(site: Site) -> int:
    value = site.data.hex().encode()[: len(site.data)]
    to = ("redis-cli", "-h", MUX, "-p", str(PORT))
    file = site.folder / "value"
    file.write_bytes(value)
    site.path.run("sh", "-ec", f"{' '.join(to)} -x set big < {file}")
    return _check("redis-cli", site.path.run(*to, "get", "big"), value + b"\n")


def _psql(site: Site) -> int:
    count = len(site.data) // 32
    address = f"host={MUX} port={PORT} user=postgres password=secret dbname=postgres"
    query = f"select string_agg(md5(n::text), '' order by n) from generate_series(1, {count}) n"
    wanted = "".join(hashlib.md5(b"%d" % n).hexdigest() for n in range(1, count + 1))
    got = site.path.run("psql", "-XAtc", query, f"{address} sslmode=disable")
    return _check("psql", got, f"{wanted}\n".encode())


def _dig(site: Site, *options: str) -> int:
    total = 0
    for number in range(1, 11):
        to = (f"@{MUX}", "-p", str(PORT), "+short", "+tries=20", "+timeout=2", *options)
        got = site.path.run("dig", "-r", *to, f"n{number}.test")
        # It tells of each question that it had to ask again.
        answers = [line for line in got.splitlines(keepends=True) if not line.startswith(b";")]
        total += _check("dig", b"".join(answers), b"192.0.2.%d\n" % number)
    return total


def _dig_tcp(site: Site) -> int:
    return _dig(site, "+tcp")


def _dig_udp(site: Site) -> int:
    return _dig(site)


def _openvpn_tcp(site: Site) -> int:
    made = {name: make_authority(name, name) for name in ("server", "client")}
    prints = {
        name: one.certificate.fingerprint(hashes.SHA256()).hex(":") for name, one in made.items()
    }
    with ExitStack() as ends:
        for name, other, inside, role, before in (
            ("server", "client", ("10.95.0.1", "10.95.0.2"), _VPN_SERVER, ()),
            (
                "client",
                "server",
                ("10.95.0.2", "10.95.0.1"),
                _VPN_CLIENT,
                site.path.clients.command,
            ),
        ):
            files = [site.folder / f"vpn-{name}.{suffix}" for suffix in ("pem", "key")]
            made[name].write(files[0])
            files[1].write_bytes(made[name].key_pem())
            child = Child(
                *(*before, "openvpn", "--dev", f"tvpn{name}", "--dev-type", "tun", *role),
                *("--ifconfig", *inside, "--peer-fingerprint", prints[other], "--verb", "3"),
                *("--cert", files[0], "--key", files[1]),
            )
            ends.callback(child.end)
            child.wait_for("Listening for incoming" if not before else "Sequence Completed")
        exchange(site.path.clients, "10.95.0.1", _IN_TUNNEL)
    return 2 * _IN_TUNNEL


_VPN_SERVER = (
    *("--tls-server", "--dh", "none", "--proto", "tcp4-server"),
    *("--local", "127.0.0.1", "--lport", "1195"),
)
_VPN_CLIENT = ("--tls-client", "--proto", "tcp4-client", "--remote", MUX, str(PORT), "--nobind")


def _openvpn_udp(site: Site) -> int:
    site.openvpn.use()
    return 2 * _IN_TUNNEL


def _wireguard(site: Site) -> int:
    site.wireguard.use()
    return 2 * 2 * _IN_TUNNEL


def _aioquic(site: Site) -> int:
    count = len(site.data)
    module = "campaign.networks.h3"
    got = site.path.run(
        sys.executable, "-m", module, MUX, str(PORT), "site.example.com", str(count)
    )
    wanted = hashlib.sha256(content("site", count)).hexdigest()
    if got.decode() != wanted:
        raise AssertionError("aioquic: what came is not what was sent")
    return count


def _curl_h3(site: Site) -> int:
    require_curl()
    count = len(site.data)
    got = site.path.run(sys.executable, "-c", _CURL_H3, MUX, str(PORT), str(count))
    return _check("curl with HTTP/3", got, content("site", count))


PROGRAMS: dict[str, Callable[[Site], int]] = {
    "scp": _scp,
    "curl, TLS to the server": _https_passed,
    "curl, TLS ended": _https_ended,
    "curl, HTTP": _http,
    "redis-cli": _redis,
    "psql": _psql,
    "dig over TCP": _dig_tcp,
    "openvpn over TCP": _openvpn_tcp,
    "dig over UDP": _dig_udp,
    "openvpn over UDP": _openvpn_udp,
    "wireguard-go": _wireguard,
    "aioquic": _aioquic,
    "curl, HTTP/3": _curl_h3,
}
"""They take a site, and give how many bytes they have compared."""
