"""What the how-to *HTTP/3 and WireGuard on one port* says, with its rules, its commands and real servers."""

import asyncio
import os
import re
import socket
import sys
from functools import partial
from pathlib import Path

from tests.interop.datagrams.tunnels import EchoServer, Keys, exchange
from tests.interop.quic.case import Server
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import client, configuration
from tests.interop.servers import make_certificate, site, start_nginx
from tests.support.kit import Child, InteropTestCase, Namespace, cable, eventually, output_of, write

_ROOT = Path(__file__).parents[3]
_RULES = _ROOT / "examples" / "http3-and-wireguard.ini"
_OFFICE = "192.0.2.20"
_HERE, _CLIENT, _ELSEWHERE = "198.51.100.1", "198.51.100.2", "198.51.100.3"


class HowToTests(InteropTestCase):
    def start_wireguard(self, end: str, namespace: Namespace, keys: Keys, lines: str) -> str:
        interface = f"wg{os.getpid()}{end}"
        command = ("env", "LOG_LEVEL=verbose", "wireguard-go", "-f", interface)
        self.own(Child(*namespace.command, *command, ready="UAPI listener started"))
        file = write(self.folder / interface, f"[Interface]\nPrivateKey={keys.private}\n{lines}")
        output_of(*namespace.command, "wg", "setconf", interface, file)
        return interface

    def start_server(self, number: int, namespace: Namespace) -> tuple[str, str]:
        server = self.start_wireguard(f"s{number}", namespace, Keys(), "ListenPort=51820\n")
        self.give_address(server, namespace, f"10.9{number}.0.1")
        key = output_of(*namespace.command, "wg", "show", server, "public-key")
        return server, key.decode().strip()

    def start_client(self, number: int, namespace: Namespace, server: str, key: str) -> str:
        lines = f"[Peer]\nPublicKey={key}\nAllowedIPs=10.9{number}.0.0/24\n"
        lines += f"Endpoint={_HERE}:443\nPersistentKeepalive=1\n"
        keys = Keys()
        peer = ("peer", keys.public, "allowed-ips", f"10.9{number}.0.2/32")
        output_of(*namespace.command, "wg", "set", server, *peer)
        client = self.start_wireguard(f"c{number}", self.client, keys, lines)
        self.give_address(client, self.client, f"10.9{number}.0.2")
        return client

    @staticmethod
    def give_address(interface: str, namespace: Namespace, address: str) -> None:
        namespace.ip(f"addr add {address}/24 dev {interface}")
        namespace.ip(f"link set {interface} up")

    def command(self, name: str) -> list[str]:
        [line] = re.findall(rf"^\$ (?:sudo )?(txmux {name} .*)$", self.text, re.MULTILINE)
        return ["-m", *str(line).split()]

    def test_all_of_it(self) -> None:
        """Each name and each key leads to its server, also when the client of the tunnels moves; TCP leads to the web site, and a scanner gets nothing."""
        self.text = (_ROOT / "docs" / "how-to" / "http3-and-wireguard.md").read_text()
        self.here, self.office, self.client = (Namespace(self) for _ in range(3))
        cable(self.here, ["192.0.2.1/24"], self.office, [f"{_OFFICE}/24"])
        _, wire = cable(self.here, [f"{_HERE}/24"], self.client, [f"{_CLIENT}/24"])
        self.here.enter()
        self.own(EchoServer())
        certificate = make_certificate(self.folder, "www.example.com", "shop.example.com")
        for name, at in (("shop", 8443), ("site", 8444), ("site", 8445)):
            self.own(Server(name, certificate, f"--at=127.0.0.1:{at}"))
        self.own(start_nginx(self.folder, site("127.0.0.1:8443", "shop", certificate=certificate)))
        ends = enumerate((self.here, self.office))
        servers = [(there, *self.start_server(number, there)) for number, there in ends]
        keys = iter([key for _, _, key in servers])
        rules = re.sub(r"(?<=wireguard key=).*", lambda _: next(keys), _RULES.read_text())
        write(self.folder / "http3-and-wireguard.ini", rules)
        in_folder = ("env", "-C", str(self.folder), sys.executable)
        self.assertNotIn(b"error", output_of(*in_folder, *self.command("check")))
        run = (*in_folder, *self.command("run"))
        running = self.own(Child(*run, ready=r"process \d+, rules"))
        asyncio.run(self.ask())
        curl = ("curl", "--silent", "--cacert", certificate.chain)
        here = ("--resolve", f"shop.example.com:443:{_HERE}")
        self.assertEqual(output_of(*curl, *here, "https://shop.example.com"), b"shop\n")
        scanner = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        scanner.sendto(b"\1\0\0\0" + bytes(144), (_HERE, 443))
        clients = []
        for number, (there, name, key) in enumerate(servers):
            clients.append(self.start_client(number, there, name, key))
            eventually(partial(self.is_up, there, name), "there is a tunnel")
        self.exchange()
        self.client.ip(f"addr del {_CLIENT}/24 dev {wire}")
        self.client.ip(f"addr add {_ELSEWHERE}/24 dev {wire}")
        for interface in clients:
            # wireguard-go goes on with an address that is gone, until it takes another port.
            output_of(*self.client.command, "wg", "set", interface, "listen-port", "0")
        self.exchange()
        running.process.terminate()
        running.wait_for("stopping")
        running.end()  # the second signal ends all flows
        scanner.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self.assertRaises(BlockingIOError, scanner.recv, 1)
        routes = re.findall(r"listener=public-udp .* route=(\S+) .* reason=(\S+)", running.output)
        names = [route for route, _ in routes]
        self.assertEqual(sorted(names), sorted(["shop", "site", "site", "home", "office", "-"]))
        self.assertEqual(dict(routes)["-"], "no-route")
        for route in ("home", "office"):
            moved = rf" client={_CLIENT}:.* route={route} .*\.message=initiation facts\.moved_to={_ELSEWHERE}:"
            self.assertRegex(running.output, moved)

    def exchange(self) -> None:
        """Use both tunnels; at the end of one, nothing listens."""
        exchange(self.client, "10.90.0.1")
        with self.client.inside():
            for _ in range(50):
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("10.91.0.1", 7000), 60)

    @staticmethod
    def is_up(namespace: Namespace, server: str) -> bool:
        told = output_of(*namespace.command, "wg", "show", server, "latest-handshakes")
        return told.split()[1] != b"0"

    async def ask(self) -> None:
        for host, name in (("shop", "shop"), ("www", "site"), ("www", "site")):
            async with client(443, configuration(f"{host}.example.com"), host=_HERE) as one:
                answer = await one.get("/20000")
                self.assertEqual((answer.server, answer.body), (name, content(name, 20_000)))
