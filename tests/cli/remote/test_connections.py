import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.cli.support import CommandTestCase
from tests.support.changes import set_wall_clock

_ONE: dict[str, Any] = {
    "id": "5f3a-1", "listener": "public", "client": "192.0.2.1:50001", "local": "198.51.100.1:443",
    "route": "site", "backend": "web", "server": "10.0.0.5:8443", "state": "relaying",
    "age_ms": 3_723_004.5, "idle_ms": 12.0, "bytes_in": 1234, "bytes_out": 5_678_901,
    "generation": 2, "worker": 1, "facts": {},
}  # fmt: skip
_OTHER = {
    **_ONE, "id": "5f3a-2", "route": None, "server": None, "state": "peeking", "age_ms": 900.0,
    "bytes_in": 0, "bytes_out": 0,
}  # fmt: skip
_SHOWN = """\
id      client           listener  route  server         state           age   idle       in      out
5f3a-1  192.0.2.1:50001  public    site   10.0.0.5:8443  relaying  1 h 2 min  12 ms  1.23 kB  5.68 MB
5f3a-2  192.0.2.1:50001  public    -      -              peeking      900 ms  12 ms      0 B      0 B
"""
_CLIENTS = """\
source       active  connections      rate   in      out  refused  unrecognised   for
203.0.113.7     200       41.2 k  3.89 k/s  0 B  5.68 MB     41 k             0  11 s
"""


class ConnectionsTests(CommandTestCase):
    def query(self, *arguments: str) -> dict[str, str]:
        server = self.answering(document=[_ONE])
        self.assertEqual(self.ask("connections", *arguments)[0], 0)
        ((method, path, *_),) = server.asked
        server.end()
        (self.run_folder / "rules.sock").unlink()
        self.assertEqual((method, urlsplit(path).path), ("GET", "/api/connections"))
        return dict(parse_qsl(urlsplit(path).query))

    def test_shown(self) -> None:
        server = self.answering(document=[_ONE, _OTHER])
        self.assertEqual(self.ask("connections"), (0, _SHOWN, ""))
        code, out, _ = self.ask("connections", "--json")
        self.assertEqual((code, json.loads(out)), (0, [_ONE, _OTHER]))
        # The limit and missing workers are reported on the error stream.
        server.document = [_ONE]
        _, _, err = self.ask("connections", "--limit", "1")
        self.assertEqual(err, "these are the first 1; for more give --limit, or --after 5f3a-1\n")
        server.headers["Txmux-Missing"] = "worker 2: no answer"
        _, _, err = self.ask("connections")
        self.assertEqual(err, "warning: the answer is not complete: worker 2: no answer\n")
        # The busiest sources.
        set_wall_clock(self, 1795203607.25)
        row = {
            "source": "203.0.113.7", "active": 200, "connections": 41_200, "rate": 3890.25,
            "bytes_in": 0, "bytes_out": 5_680_000, "refused": 41_000, "unrecognised": 0,
            "since": 1795203596.0,
        }  # fmt: skip
        server.document = [row]
        server.headers.clear()
        server.asked.clear()
        code, out, err = self.ask("clients", "--limit", "5")
        self.assertEqual((code, err, server.asked.pop().path), (0, "", "/api/clients?limit=5"))
        self.assertEqual(out, _CLIENTS)
        server.document = []
        self.assertEqual(self.ask("clients"), (0, "no client has connected yet\n", ""))
        self.assertEqual(server.asked.pop().path, "/api/clients?limit=100")

    def test_none(self) -> None:
        server = self.answering(document=[])
        self.assertEqual(self.ask("connections"), (0, "there are no connections\n", ""))
        filtered = (0, "there is no such connection\n", "")
        self.assertEqual(self.ask("connections", "--client", "::1", "--route", "-"), filtered)
        self.assertEqual(self.ask("connections", "--json"), (0, "[]\n", ""))
        # A name that the rules do not have.
        named = [{"name": "site"}, {"name": "other"}]
        server.others = {
            "/api/routes": named, "/api/backends": named, "/api/status": {"pid": 1, "listeners": named},
        }  # fmt: skip
        for kind in ("listener", "route", "backend"):
            code, out, err = self.ask("connections", f"--{kind}", "siet")
            self.assertEqual((code, out), (0, "there is no such connection\n"))
            self.assertEqual(
                err, f"note: there is no {kind} 'siet' in the rules; did you mean 'site'?\n"
            )
            self.assertEqual(self.ask("connections", f"--{kind}", "site")[2], "")
        server.document = {"ok": True, "closed": 0}
        code, out, err = self.ask("close", "--route", "x")
        self.assertEqual((code, out), (0, "ended: 0 connections\n"))
        self.assertEqual(err, "note: there is no route 'x' in the rules (there are site, other)\n")

    def test_filters_as_options_or_words(self) -> None:
        values = {
            "listener": "public", "route": "-", "backend": "web", "server": "[2001:db8::1]:443",
            "client": "192.0.2.0/24", "state": "relaying", "older": "5m",
        }  # fmt: skip
        options = [word for name, value in values.items() for word in (f"--{name}", value)]
        wanted = {**values, "limit": "1000"}
        self.assertEqual(self.query(*options), wanted)
        self.assertEqual(self.query(*(f"{name}={value}" for name, value in values.items())), wanted)
        page = {"limit": "5", "after": "5f-1"}
        self.assertEqual(self.query("--limit", "5", "--after", "5f-1"), page)

    def test_unknown_and_invalid_filters_are_wrong_usage(self) -> None:
        server = self.answering(document={"error": "older: must be a time"}, status=400)
        for words in (["web"], ["colour=blue"], ["route=a", "--route", "b"], ["--limit", "x"]):
            self.assertEqual(self.ask("connections", *words)[0], 2, words)
        self.assertEqual(server.asked, [])
        self.assertEqual(self.ask("connections", "older=x"), (2, "", "older: must be a time\n"))

    def test_closed_by_id_or_filters(self) -> None:
        # An unclear request ends nothing.
        server = self.answering()
        for words in ([], ["5f-1", "--backend", "web"], ["5f-1", "5f-2"], ["colour=blue"]):
            self.assertEqual(self.ask("close", *words)[0], 2, words)
        self.assertEqual(server.asked, [])
        server.document = {"ok": True, "closed": 1, "changes": "1 connection ended"}
        self.assertEqual(self.ask("close", "5f/1"), (0, "ended: 1 connection\n", ""))
        asked = server.asked.pop()
        self.assertEqual((asked.method, asked.path), ("POST", "/api/connections/5f%2F1/close"))
        why = "there is no live connection of this ID"
        server.document, server.status = {"error": why}, 404
        self.assertEqual(self.ask("close", "5f-1"), (1, "", f"{why}\n"))
        server.document, server.status = {"ok": True, "closed": 17}, 200
        self.assertEqual(
            self.ask("close", "--backend", "web", "older=1h"), (0, "ended: 17 connections\n", "")
        )
        asked = server.asked.pop()
        self.assertEqual((asked.method, asked.path), ("POST", "/api/connections/close"))
        self.assertEqual(asked.body, {"backend": "web", "older": "1h"})
