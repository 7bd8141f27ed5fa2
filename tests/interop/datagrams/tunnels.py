"""Tunnels between two networks: OpenVPN, and what begins one of IPsec. WireGuard is in ``test_how_to``."""

import base64
import random
import socket
from contextlib import ExitStack
from functools import partial
from typing import ClassVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.interop.children import PATIENCE, Child, Started, output_of, write
from tests.interop.datagrams.program import PORT, Program, say
from tests.support.kit import Namespace, ThreadServer, make_authority

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""Where the service is, and where clients in the other namespace are."""

_PORT_INSIDE = 7000


class EchoServer(ThreadServer):
    """What programs exchange bytes with inside a tunnel, at all addresses of this namespace."""

    def __init__(self) -> None:
        super().__init__(self._echo, "0.0.0.0", _PORT_INSIDE)

    @staticmethod
    def _echo(accepted: socket.socket) -> None:
        accepted.sendall(b"".join(iter(partial(accepted.recv, 2**16), b"")))


def exchange(there: Namespace, address: str) -> None:
    """Send bytes from the other namespace to an address inside a tunnel, and see to it that they come back."""
    sent = random.Random(1).randbytes(300_000)
    with there.inside():
        peer = socket.create_connection((address, _PORT_INSIDE), PATIENCE)
    with peer:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        got = b"".join(iter(partial(peer.recv, 2**16), b""))
    assert got == sent, f"what came back from {address} is not what was sent"


class Keys:
    def __init__(self) -> None:
        key = X25519PrivateKey.generate()
        self.private = base64.b64encode(key.private_bytes_raw()).decode()
        self.public = base64.b64encode(key.public_key().public_bytes_raw()).decode()


class OpenVpn(Program):
    """A server with one client, which know the fingerprints of each other's certificates."""

    matches: ClassVar = {"tunnel": ("openvpn", 1194)}
    least = (200, 200)

    def use(self) -> None:
        prints = {}
        for name in ("server", "client"):
            made = make_authority(name, name)
            made.write(self.folder / f"{name}.pem", key=True)
            prints[name] = made.certificate.fingerprint(hashes.SHA256()).hex(":")
        with ExitStack() as ends:
            server = self._start("server", prints["client"], "10.93.0.1", "10.93.0.2", ends)
            server.wait_for("UDPv4 link local")
            client = self._start("client", prints["server"], "10.93.0.2", "10.93.0.1", ends)
            client.wait_for("Initialization Sequence Completed")
            exchange(self.there, "10.93.0.1")

    def _start(self, name: str, other: str, here: str, there: str, ends: ExitStack) -> Child:
        is_client = name == "client"
        role = "--tls-server --dh none --local 127.0.0.1 --lport 1194"
        if is_client:
            role = f"--tls-client --remote {HERE} {PORT} --nobind"
        before = self.there.command if is_client else ()
        device = ("--dev", f"ovpn{name}", "--dev-type", "tun", "--proto", "udp4", *role.split())
        ends_at = ("--ifconfig", here, there, "--peer-fingerprint", other, "--verb", "3")
        own = ("--cert", self.folder / f"{name}.pem", "--key", self.folder / f"{name}.pem")
        child = Child(*before, "openvpn", *device, *ends_at, *own)
        ends.callback(child.end)
        return child


_STRONGSWAN = """\
charon-systemd {{
  filelog {{
    stderr {{
      default = 1
    }}
  }}
  load = random nonce aes sha1 sha2 hmac kdf gmp pem pkcs1 x509 pubkey socket-default kernel-netlink vici
  plugins {{
    vici {{
      socket = unix://{folder}/vici
    }}
  }}
}}
swanctl {{
  load = random pem pkcs1 x509 pubkey
}}
"""

_CONNECTIONS = """\
connections {
  any {
    proposals = aes128-sha1-modp1024
    local {
      auth = psk
      id = server
    }
    remote {
      auth = psk
    }
    children {
      net {
        local_ts = 10.94.0.0/24
      }
    }
  }
}
secrets {
  ike {
    secret = shared
  }
}
"""


class Ike(Program):
    matches: ClassVar = {"ipsec": ("ike", 500)}
    least = (2, 2)
    serves = "spawning 16 worker threads"

    def server(self) -> Started:
        text = _STRONGSWAN.format(folder=self.folder)
        self._settings = write(self.folder / "strongswan.conf", text)
        return Child("env", f"STRONGSWAN_CONF={self._settings}", "charon-systemd")

    def ready(self) -> None:
        super().ready()
        file = write(self.folder / "swanctl.conf", _CONNECTIONS)
        command = ("env", f"STRONGSWAN_CONF={self._settings}", "swanctl", "--load-all")
        where = ("--noprompt", "--file", file, "--uri", f"unix://{self.folder}/vici")
        output_of(*command, *where)

    def use(self) -> None:
        to = ("--sport=0", "--timeout=60000", f"--dport={PORT}", self.host)
        assert "1 returned handshake" in (said := say("ike-scan", "--trans=7/128,2,1,2", *to)), said
        assert "IKEv2" in (said := say("ike-scan", "--ikev2", *to)), said
