"""The example of DNS, before a server that reads PROXY headers and answers with the address in them."""

import sys
from typing import ClassVar

import pytest

from tests.interop.children import Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate

pytestmark = pytest.mark.by_turns

_SERVER = """
import asyncio, struct, sys

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")

def taken(data):
    "Split a header of version 2 off: the four bytes of the client's address, and what follows."
    assert data.startswith(SIGNATURE), data
    size = int.from_bytes(data[14:16], "big")
    return data[16:20] if data[12] == 0x21 else bytes(4), data[16 + size:]

def answer(query, address):
    end = query.index(0, 12) + 5
    return query[:2] + bytes.fromhex("81800001000100000000") + query[12:end] + bytes.fromhex("c00c00010001000000000004") + address

class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, place):
        address, query = taken(data)
        if query:
            self.transport.sendto(answer(query, address), place)

async def serve(reader, writer):
    head = await reader.readexactly(16)
    address, _ = taken(head + await reader.readexactly(int.from_bytes(head[14:], "big")))
    while True:
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        except asyncio.IncompleteReadError:
            break
        said = answer(query, address)
        writer.write(len(said).to_bytes(2, "big") + said)
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 5353))
    async with await asyncio.start_server(serve, "127.0.0.1", 5353) as server:
        print("ready", flush=True)
        await server.serve_forever()

asyncio.run(main())
"""


class DnsTests(ScenarioTestCase):
    addresses: ClassVar = ("10.0.0.53", "10.0.0.1", "10.0.0.2")

    def test_the_server_sees_the_client_over_udp_tcp_and_tls(self) -> None:
        folder = self.make_folder()
        made = make_certificate(folder, "dns.example.com")
        own = folder / "dns.example.com"
        own.mkdir()
        (own / "fullchain.pem").write_bytes(made.chain.read_bytes())
        (own / "privkey.pem").write_bytes(made.key.read_bytes())
        server = self.own(Child(sys.executable, "-c", _SERVER))
        server.wait_for("ready")
        mux = self.own(Example(EXAMPLES / "dns.ini", {"/etc/ssl": folder}))
        for way in ("+notcp", "+tcp", "+tls"):
            for client in ("10.0.0.1", "10.0.0.2"):
                asked = ("dig", "@10.0.0.53", "-b", client, way, "+short", "+tries=1")
                found = output_of(*asked, "www.example.com").decode().split()
                self.assertEqual(found, [client], way)
        listeners = [line["listener"] for line in mux.take(4)]
        self.assertEqual(sorted(listeners), ["tcp", "tcp", "tls", "tls"])
