from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import SupervisedTestCase, authority, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.control.connections import end_connections, find_connection
from txmux.control.documents import rules_document
from txmux.control.filters import EVERY
from txmux.control.report import UnknownError
from txmux.control.rules_index import RulesIndex, known_backend, known_listener, known_server
from txmux.rules.model import NOWHERE
from txmux.rules.reading.parser import parse
from txmux.telemetry.documents import ConnectionDocument, DecisionDocument, EndDocument

PATH = Path("/etc/txmux/rules.ini")


class SectionsTest(SynchronousTestCase):
    def test_line_and_text_of_each_section(self) -> None:
        text = (
            "# all of it\n[listen x]\nendpoint =\n    127.0.0.1:1\n    [::1]:1\n\n; why\n"
            "[route ssh]\nmatch = ssh\nbackend = b\n\n[backend b]\nserver = 127.0.0.1:2\n"
        )
        rules = parse(text, PATH)
        index = RulesIndex(rules)
        file: Any
        (file,) = rules_document(index)
        file["sections"] = [*file["sections"]]
        self.assertEqual((file["file"], file["text"]), (str(PATH), text))
        shown = [(one["name"], one["line"]) for one in file["sections"]]
        self.assertEqual(shown, [("listen x", 2), ("route ssh", 8), ("backend b", 12)])
        route = "[route ssh]\nmatch = ssh\nbackend = b"
        self.assertEqual(index.text_of(rules.routes[0].section), route)
        self.assertIn("    [::1]:1", file["sections"][0]["text"])
        rules = parse(
            "[listen x]\nendpoint = 127.0.0.1:1\n[listen y]\nendpoint = 127.0.0.1:2\n"
            "[route out]\nunder = y\nmatch = tls\nterminate_tls = x.pem\n"
            "[route in]\nunder = out\nmatch = http\nbackend = close\n",
            PATH,
        )
        found = [RulesIndex(rules).listeners_of(route) for route in rules.routes]
        self.assertEqual(found, [["y"], ["y"]])
        index = RulesIndex(rules)
        self.assertEqual((index.route("in"), index.route("none")), (rules.routes[1], None))
        self.assertEqual((index.routes_under("out"), index.routes_under("in")), (["in"], ()))
        self.assertEqual(index.text_of(NOWHERE), "")
        endpoints = (("x", "127.0.0.1:1"), ("u", "udp:127.0.0.1:1"), ("y", "127.0.0.1:2"))
        text = "".join(f"[listen {name}]\nendpoint = {where}\n" for name, where in endpoints)
        for name, under, to in (
            ("a", "y, x", "b"), ("c", "*", "close"), ("d", "*", "b"), ("e", "u", "close"),
        ):  # fmt: skip
            text += f"[route {name}]\nunder = {under}\nmatch = any\nbackend = {to}\n"
        rules = parse(f"{text}[backend b]\nserver = 127.0.0.1:3\n", PATH)
        index = RulesIndex(rules)
        found = [index.listeners_of(route) for route in rules.routes]
        self.assertEqual(found, [["x", "y"], ["x", "u", "y"], ["x", "y"], ["u"]])
        self.assertEqual((index.routes_to("b"), index.routes_to("none")), (["a", "d"], ()))
        for known, right, wrong, told in (
            (known_backend, ["b"], ["bb"], "there is no backend 'bb'; did you mean 'b'?"),
            (known_server, ["b", "127.0.0.1:3"], ["b", "x"], "backend b has no server 'x' (there are 127.0.0.1:3)"),
            (known_listener, ["u"], ["v"], "there is no [listen v]"),
        ):  # fmt: skip
            known(index, *right)
            with self.assertRaises(UnknownError) as raised:
                known(index, *wrong)
            self.assertIn(told, str(raised.exception))


class ConnectionTest(SupervisedTestCase):
    async def test_tunnels_within_tunnels(self) -> None:
        """What a worker says of each level comes through."""
        tunnel = "match = http method=CONNECT\ntunnel = yes\nbackend = b\n"
        routes = [f"[route t{n}]\n{f'under = t{n - 1}' * (n > 0)}\n{tunnel}" for n in range(3)]
        routes += ["[route end]\nunder = t2\nmatch = ssh\nbackend = b\n"]
        await self.live.begin("".join(routes))
        connect = b"CONNECT a.test:22 HTTP/1.1\r\n\r\n"
        data = connect * 3 + b"SSH-2.0-a\r\n"
        (stream,) = (await self.running.control.explain(data))["streams"]
        layer, taken = stream["listeners"][0], list[str | None]()
        while True:
            assert layer["decision"] is not None
            self.assertEqual(layer["bytes"], len(data) - len(taken) * len(connect))
            taken.append(layer["decision"]["route"])
            if "inside" not in layer:
                break
            layer = layer["inside"]
        self.assertEqual(taken, ["t0", "t1", "t2", "end"])

    def peer(self) -> SecurePeer:
        return SecurePeer((client_context(None), "a.example"))

    async def explanation(self, row: ConnectionDocument) -> DecisionDocument:
        (found,) = await find_connection(self.running.control, row["id"])
        assert found is not None
        assert found["explanation"] is not None
        return found["explanation"]

    async def test_routes_of_both_levels_and_no_bytes_from_inside(self) -> None:
        pem = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        port = await self.live.begin(
            "[route other]\nmatch = http\nbackend = b\n"
            f"[route b]\nmatch = tls sni=b.example\nterminate_tls = {pem}\nbackend = close\n"
            "[route inner]\nunder = b\nmatch = http\nbackend = b\n"
            f"[route secure]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
            "[route web]\nunder = secure\nmatch = http\nbackend = b\n"
            "[route shell]\nunder = secure\nmatch = ssh\nbackend = b\n"
        )
        client = await connect_tls(self, port, self.peer())
        await client.ready()
        client.send(b"SS")
        (row,) = await self.live.listed(1, state="peeking", route="secure")
        while (told := await self.explanation(row))["bytes"] != 2:
            pass
        asked = [(one["route"], one["says"], one["inside"]) for one in told["routes"]]
        self.assertEqual(asked, [(name, "undecided", "secure") for name in ("web", "shell")])
        client.send(b"H-2.0-a\r\n")
        (row,) = await self.live.listed(1, state="relaying")
        told = await self.explanation(row)
        self.assertEqual(
            [(one["route"], one["says"], one["inside"]) for one in told["routes"]],
            [
                ("other", "no", None), ("b", "no", None), ("secure", "match", None),
                ("ssh", "not asked", None), ("web", "no", "secure"), ("shell", "match", "secure"),
            ],
        )  # fmt: skip
        self.assertEqual(told["route"], "shell")
        await end_connections(self.running.control, EVERY)
        unknown = await connect_tls(self, port, self.peer())
        await unknown.ready()
        unknown.send(b"\x00secret")
        await unknown.until(lambda: unknown.told_close_notify)
        unknown.reset()
        while len(ends := self.running.control.recent_failures()) < 2:
            await deferLater(reactor, 0)
        self.assertEqual((ends[0]["route"], ends[0]["reason"]), ("secure", "no-route"))
        self.assertNotIn("first", ends[0])

    async def recent(self, count: int) -> list[EndDocument]:
        while len(found := self.running.control.recent_failures()) < count:
            await deferLater(reactor, 0)
        self.assertEqual(len(found), count)
        return found

    async def test_bytes_of_unrecognised_clients_alone_and_none_with_capture_off(self) -> None:
        port = await self.live.begin()
        client = await self.live.client(port, b"\x00\xff" * 100)
        await client.is_lost()
        (row,) = await self.recent(1)
        self.assertEqual((row["reason"], row["route"], row["bytes_in"]), ("no-route", None, 200))
        self.assertEqual((row["first"], row["worker"]), ("00ff" * 32, 1))
        done = await self.live.client(port)
        await self.live.listed(1, state="relaying")  # so that its server is the first
        killed = await self.live.client(port)
        await self.live.listed(2, state="relaying")
        done.finish()
        (await self.live.backend.peer()).finish()
        await done.is_lost()
        await self.live.listed(1)
        killed.reset()
        row, _ = await self.recent(2)
        self.assertEqual((row["reason"], row["route"]), ("client-reset", "ssh"))
        self.assertNotIn("first", row)
        await self.change(self.live.text("capture = no\n"))
        client = await self.live.client(port, b"secret")
        await client.is_lost()
        row, *_ = await self.recent(3)
        self.assertEqual((row["reason"], row["first"]), ("no-route", ""))
