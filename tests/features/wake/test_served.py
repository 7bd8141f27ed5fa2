"""A service starts the server that clients wait for, and rules say how."""

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from typing_extensions import override

from tests.admin.processes import post
from tests.interop.children import eventually
from tests.processes.test_held import HeldCase


class ServedTests(HeldCase):
    def test_wake_up_starts_the_server_once_however_many_workers(self) -> None:
        asked: list[str] = []
        started: list[socket.socket] = []
        test = self

        class Starter(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                started.append(test.come_up())
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
        wake = f"hold = 10m\nwake = http POST http://127.0.0.1:{starter.server_port}/start"
        for is_held in (False, True):
            mux = self.begin(wake, "workers = 2")
            mux.child.wait_for("serving with 2 worker")
            if is_held:
                post(self.admin, "/api/backends/pool/hold", {})
            clients = [self.say(mux, b"x") for _ in range(6)]
            if is_held:
                self.waiting(6)
                self.assertEqual(asked, [])
                post(self.admin, "/api/backends/pool/release")
            eventually(lambda: bool(started), "the server is started", 10)
            for _ in clients:
                self.accept_from(started[0], b"x").close()
            for client in clients:
                self.assertEqual(client.recv(1), b"")
                client.close()
            self.assertEqual({line["reason"] for line in mux.take(6)}, {"done"})
            self.assertEqual(asked, ["/start"])
            mux.stop()
            asked.clear()
            started.pop().close()
