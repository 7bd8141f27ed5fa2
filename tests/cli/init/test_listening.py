import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.cli.init.services import Listening, listening

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, port: int, inode: int, state: str = "0A") -> str:
    packed = ip_address(address).packed
    words = "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
    return f"   0: {words}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n"


def is_unambiguous(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address can be connected to by itself, and has one way to be written."""
    return address.version == 4 or not (address.is_link_local or address.ipv4_mapped)


class ListeningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proc = make_folder(self)
        (self.proc / "net").mkdir()
        (self.proc / "net/tcp").write_text(_HEAD)

    def process(self, pid: int, name: bytes, *inodes: int) -> None:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_bytes(name + b"\n")
        for number, inode in enumerate(inodes):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def found(self, tcp: str, tcp6: str = "") -> list[tuple[str, int, str]]:
        (self.proc / "net/tcp").write_text(_HEAD + tcp)
        if tcp6:
            (self.proc / "net/tcp6").write_text(_HEAD + tcp6)
        return [(str(one.address), one.port, one.program) for one in listening(self.proc)]

    def test_listening_sockets_by_port_with_their_programs(self) -> None:
        self.process(10, b"sshd", 7, 8)
        tcp = row("0.0.0.0", 443, 9) + row("127.0.0.1", 22, 7) + row("10.0.0.1", 22, 8, "01")
        self.assertEqual(self.found(tcp), [("127.0.0.1", 22, "sshd"), ("0.0.0.0", 443, "")])
        # The name of a program is one plain word.
        self.process(11, b"a\n[route x]\xff", 12)
        ((_, _, name),) = self.found(row("127.0.0.1", 80, 12))
        self.assertRegex(name, r"^a[\w.+-]+$")
        # Mapped addresses are IPv4, and link-local ones are left out.
        tcp6 = row("::ffff:127.0.0.1", 80, 1) + row("fe80::1", 81, 2)
        self.assertEqual(self.found("", tcp6), [("127.0.0.1", 80, "")])
        # One socket for each port: the unspecified address, and IPv4, first.
        tcp = row("127.0.0.1", 80, 1) + row("0.0.0.0", 80, 2) + row("10.0.0.1", 81, 3)
        tcp6 = row("::", 80, 4) + row("::", 81, 5) + row("2001:db8::1", 82, 6)
        self.assertEqual(
            self.found(tcp, tcp6), [("0.0.0.0", 80, ""), ("::", 81, ""), ("2001:db8::1", 82, "")]
        )

    @given(st.ip_addresses().filter(is_unambiguous), st.integers(1, 65535))
    def test_every_address(self, address: object, port: int) -> None:
        text = str(address)
        version = 4 if ip_address(text).version == 4 else 6
        lines = row(text, port, 1)
        found = self.found(lines) if version == 4 else self.found("", lines)
        (self.proc / "net/tcp6").unlink(missing_ok=True)
        self.assertEqual(found, [(text, port, "")])

    def test_own_port_and_program_on_this_machine(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            (one,) = (one for one in listening(Path("/proc")) if one.port == port)
        self.assertEqual(one.reached_at, ("127.0.0.1", port))
        self.assertTrue(one.is_local)
        self.assertNotEqual(one.program, "")
        # The unspecified address is reached at loopback.
        for address, reached in (("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")):
            self.assertEqual(Listening(ip_address(address), 22).reached_at, (reached, 22))
