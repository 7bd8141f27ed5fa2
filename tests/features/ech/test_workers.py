"""A client that has been asked for a second hello stays where it is, and is never cut."""

import socket

from tests.features.ech.client import HIDDEN, MadeKey, Sealer, inner
from tests.interop.children import PATIENCE
from tests.processes.upgrading import UpgradeTestCase
from tests.wire.hello_builder import records, server_hello
from txmux.wire.client_hello import parse_client_hello


def _hello_from(server: socket.socket) -> bytes:
    data = b""
    while not (reader := parse_client_hello(data, None)).hello:
        data += server.recv(65536)
    assert reader.sni == HIDDEN
    return data


class HiddenHellosTest(UpgradeTestCase):
    def test_reload_and_upgrade_meanwhile(self) -> None:
        made = MadeKey()
        keys = made.write(self.folder / "key.pem")
        keys.chmod(0o644)
        listening = self.backend()
        rules = self.relaying(listening, f"ech_keys = {keys}\ndetect_timeout = 1h\n")
        mux = self.upgrading(rules, "workers = 1")
        sealer = Sealer(made)
        client = self.client(mux)
        client.sendall(records(sealer.hello(inner())))
        server, _ = listening.accept()
        server.settimeout(PATIENCE)
        _hello_from(server)
        server.sendall(records(server_hello()))
        self.assertEqual(client.recv(65536), records(server_hello()))
        mux.reload(("match = any", "match = not ssh"))
        mux.replace()
        client.sendall(records(sealer.second(inner())))
        _hello_from(server)
        server.sendall(b"welcome")
        self.assertEqual(client.recv(65536), b"welcome")
        client.close()
        self.assertEqual(server.recv(1), b"")
        server.close()
        line = mux.take_one()
        self.assertEqual((line["reason"], line["facts"]["ech_retry"]), ("done", "yes"))
