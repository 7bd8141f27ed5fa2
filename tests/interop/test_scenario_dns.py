"""DNS: the example, before a server that reads PROXY headers and answers with the address in them; and a pool of servers that are known by name only."""

import signal
import socket
from typing import ClassVar

from tests.interop.children import answered, eventually, output_of, run, write
from tests.interop.datagrams.program import Responder
from tests.interop.servers import make_certificate, start_dnsmasq
from tests.support.kit import EXAMPLES, Example, Named, ScenarioTestCase, ThreadServer, mounted
from tests.support.services import Service, pool_rules

_SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def _taken(data: bytes) -> tuple[bytes, bytes]:
    """Split a header of version 2 off: the four bytes of the client's address, and what follows."""
    assert data.startswith(_SIGNATURE), data
    size = int.from_bytes(data[14:16], "big")
    return data[16:20] if data[12] == 0x21 else bytes(4), data[16 + size :]


def _answer(address: bytes, query: bytes) -> bytes:
    if not query:
        return b""
    end, head = query.index(0, 12) + 5, query[:2] + bytes.fromhex("81800001000100000000")
    return head + query[12:end] + bytes.fromhex("c00c00010001000000000004") + address


def _answer_stream(client: socket.socket) -> None:
    with client.makefile("rb") as said:
        head = said.read(16)
        address, _ = _taken(head + said.read(int.from_bytes(head[14:], "big")))
        while size := said.read(2):
            answer = _answer(address, said.read(int.from_bytes(size, "big")))
            client.sendall(len(answer).to_bytes(2, "big") + answer)


class DnsTests(ScenarioTestCase):
    addresses: ClassVar = ("10.0.0.53", "10.0.0.1", "10.0.0.2")

    def test_the_server_sees_the_client_over_udp_tcp_and_tls(self) -> None:
        folder = self.make_folder()
        made = make_certificate(folder, "dns.example.com")
        own = folder / "dns.example.com"
        own.mkdir()
        made.chain.rename(own / "fullchain.pem")
        made.key.rename(own / "privkey.pem")
        self.own(Responder(5353, lambda data: _answer(*_taken(data))))
        self.own(ThreadServer(_answer_stream, port=5353))
        mux = self.own(Example(EXAMPLES / "dns.ini", {"/etc/ssl": folder}))
        for way in ("+notcp", "+tcp", "+tls"):
            for client in ("10.0.0.1", "10.0.0.2"):
                asked = ("dig", "@10.0.0.53", "-b", client, way, "+short", "+tries=1")
                found = output_of(*asked, "www.example.com").decode().split()
                self.assertEqual(found, [client], way)
        listeners = [line["listener"] for line in mux.take(4)]
        self.assertEqual(sorted(listeners), ["tcp", "tcp", "tls", "tls"])

    def test_changing_answers(self) -> None:
        """The first client is served; later ones follow the answers, and what was known outlives the name server."""
        hosts = write(self.folder / "hosts", "127.0.1.1 web.test\n")
        resolv_conf = write(self.folder / "resolv.conf", "nameserver 127.0.0.1\n")
        for name, host in (("one", "127.0.1.1"), ("two", "127.0.1.2")):
            Named(self, name, host=host, port=9001)
        before = mounted({"/etc/resolv.conf": resolv_conf})
        if run(*before, "true").returncode:
            self.skipTest("no other resolv.conf can be mounted")
        dnsmasq = self.own(start_dnsmasq(hosts))
        rules = pool_rules("web.test:9001", more="resolve = 1s")
        mux = self.own(Service(self.folder, rules, "workers = 2", before=before))
        place = ("127.0.0.1", mux.port)
        self.assertEqual(answered(place), "one")
        hosts.write_text("127.0.1.2 web.test\n")
        dnsmasq.process.send_signal(signal.SIGHUP)
        eventually(lambda: answered(place) == "two", "clients are led to the new address")
        dnsmasq.end()
        mux.child.wait_for("cannot find the addresses of web.test, keeping the known one")
        self.assertEqual(answered(place), "two")
