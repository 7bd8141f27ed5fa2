import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.support.kit import PATIENCE, RULES, WorkersTestCase, eventually, free_port
from txmux.features.wake import Wake
from txmux.rules.reading.parser import parse


class ServedTests(WorkersTestCase):
    def test_wake_up_starts_the_server_once_however_many_workers(self) -> None:
        asked: list[str] = []
        started: list[socket.socket] = []
        place = free_port()

        class Starter(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                started.append(socket.create_server(("127.0.0.1", place), backlog=100))
                self.send_response(204)
                self.end_headers()

            @override
            def log_message(self, *_: object) -> None: ...

        starter = HTTPServer(("127.0.0.1", 0), Starter)
        self.addCleanup(starter.server_close)
        thread = Thread(target=starter.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(starter.shutdown)
        rules = (
            f"{RULES}default = pool\n[backend pool]\nserver = 127.0.0.1:{place}\nhold = 10m\n"
            f"wake = http POST http://127.0.0.1:{starter.server_port}/start\n"
        )
        mux = self.upgrading(rules, "workers = 2", admin=True)
        mux.child.wait_for("serving with 2 worker")
        mux.api("backends/pool/hold", {})
        clients = [self.client(mux) for _ in range(6)]
        for client in clients:
            client.sendall(b"x")
        eventually(lambda: mux.api("backends")[0]["held"] == 6, "all wait")
        self.assertEqual(asked, [])
        mux.api("backends/pool/release", {})
        eventually(lambda: bool(started), "the server is started", 10)
        self.addCleanup(started[0].close)
        started[0].settimeout(PATIENCE)
        for _ in clients:
            self.accept_from(started[0], b"x").close()
        for client in clients:
            self.assertEqual(client.recv(1), b"")
            client.close()
        self.assertEqual(({line["reason"] for line in mux.take(6)}, asked), ({"done"}, ["/start"]))


_RULES = "[listen l]\nendpoint = :1\n[backend b]\nserver = 127.0.0.1:1\nwake = {}\n"


class ReadingTests(SynchronousTestCase):
    def test_forms(self) -> None:
        packet = Wake("wol", "00:11:22:33:44:ff", ("192.168.1.255", 9))
        for text, expected in {
            "wol 00:11:22:33:44:FF 192.168.1.255": packet,
            "wol 00-11-22-33-44-ff 192.168.1.255:9": packet,
            "wol 0011.2233.44ff 192.168.1.255:7": Wake(
                "wol", "00:11:22:33:44:ff", ("192.168.1.255", 7)
            ),
            "http POST https://10.0.0.2/start?x=1": Wake("POST", "https://10.0.0.2/start?x=1"),
            "systemd app@1.service": Wake("systemd", "app@1.service"),
            "http GET http://[::1]:8000/": Wake("GET", "http://[::1]:8000/"),
            "http POST unix:/run/w.sock:/db?x=/:": Wake("POST", "unix:/run/w.sock:/db?x=/:"),
        }.items():
            rules = parse(_RULES.format(text), "rules.ini")
            self.assertEqual(rules.backends["b"].more["wake"], expected)
