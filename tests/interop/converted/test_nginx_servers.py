"""nginx that lets clients in, chooses servers and connects to them, beside txmux."""

import contextlib
import socket

from tests.interop.children import PATIENCE
from tests.interop.converted.sidebyside import SideBySideTestCase, await_heard, heard


class ServerTests(SideBySideTestCase):
    program = "nginx"

    def test_full_servers(self) -> None:
        self.start(
            """
            upstream one { server <a> max_conns=1; server <spare> max_conns=2 backup; }
            upstream two { server <b> max_conns=1; server <b> max_conns=1; server <spare> backup; }
            upstream three { least_conn; server <c> max_conns=1; server <d>; }
            server { listen 127.0.0.1:<port>; proxy_pass one; }
            server { listen 127.0.0.1:<port1>; proxy_pass two; }
            server { listen 127.0.0.1:<port2>; proxy_pass three; }
            """
        )
        for ports in self.ports:
            rows = (["a", "spare", "spare", ""], ["b", "b", "spare", "spare"], ["c", "d", "d", "d"])
            for port, expected in zip(ports.values(), rows, strict=True):
                with contextlib.ExitStack() as opened:
                    found = []
                    for _ in expected:
                        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
                        opened.enter_context(client)
                        found.append(client.recv(10).decode().strip())
                    self.assertEqual(found, expected)
                await_heard("http", port, expected[0])

    def test_no_next_server_for_datagrams(self) -> None:
        """Who comes after the first finds that server out of use, whether it refuses or only does not answer."""
        datagrams = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for one in datagrams:
            self.addCleanup(one.close)
            one.bind(("127.0.0.1", 0))
            one.settimeout(PATIENCE)
        up, _, gone = datagrams
        places = [f"127.0.0.1:{one.getsockname()[1]}" for one in datagrams]
        gone.close()
        self.start(
            f"""
            proxy_responses 1;
            proxy_timeout 500ms;
            upstream refusing {{ server {places[2]}; server {places[0]}; }}
            upstream silent {{ server {places[1]}; server {places[0]}; }}
            server {{ listen 127.0.0.1:<port> udp; proxy_pass refusing; }}
            server {{ listen 127.0.0.1:<port1> udp; proxy_pass silent; }}
            """
        )
        for port in (port for ports in self.ports for port in ports.values()):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
                first.sendto(b"first", ("127.0.0.1", port))
                first.settimeout(3)
                with contextlib.suppress(TimeoutError):
                    self.assertEqual(first.recv(10), b"")  # so nginx answers what is refused
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
                second.sendto(b"second", ("127.0.0.1", port))
                self.assertEqual(up.recv(10), b"second")

    def test_no_next_server_and_weights(self) -> None:
        self.start(
            """
            upstream one { server <gone> max_fails=0; server <up> max_fails=0; }
            upstream two { server <often> weight=3; server <seldom>; }
            server { listen 127.0.0.1:<port>; proxy_pass one; proxy_next_upstream off; }
            server { listen 127.0.0.1:<port1>; proxy_pass two; }
            """
        )
        for ports in self.ports:
            often = ["often", "seldom", "often", "often"] * 2
            for port, wanted in (("port", ["", "up"] * 4), ("port1", often)):
                found = [heard("silent", ports[port]) for _ in wanted]
                self.assertEqual(sorted(found), sorted(wanted))

    def test_hash_of_the_address(self) -> None:
        self.start(
            """
            upstream one { hash $remote_addr consistent; server <a>; server <b>; server <c>; }
            split_clients $remote_addr $two { 40% <a>; 0.5% <b>; * <c>; }
            server { listen 127.0.0.1:<port>; proxy_pass one; }
            server { listen 127.0.0.1:<port1>; proxy_pass $two; }
            """
        )
        for ports in self.ports:
            for port in ports.values():
                found = {
                    source: {heard("silent", port, source=source) for _ in range(2)}
                    # Few of them might well have the same server: txmux goes by the ports of the servers, which are any.
                    for source in (f"127.0.1.{n}" for n in range(1, 51))
                }
                self.assertEqual({len(names) for names in found.values()}, {1})
                self.assertGreater(len(set.union(*found.values())), 1)

    def test_limit_of_one_address(self) -> None:
        self.prove(
            """
            limit_conn_zone $binary_remote_addr zone=each:1m;
            server { listen 127.0.0.1:<port>; limit_conn each 1; proxy_pass <a>; }
            """,
            {"a": "http from 127.0.0.9"},
        )
        for ports in self.ports:
            port = ports["port"]
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as first:
                self.assertEqual(first.recv(10), b"a\n")
                self.assertEqual(heard("http", port), "")
                self.assertEqual(heard("http", port, source="127.0.0.2"), "a")
            await_heard("http", port, "a")
