"""Real programs of all kinds that share one port of UDP, alone and all at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from tests.interop.children import InteropTestCase, eventually, output_of
from tests.interop.datagrams import answering, lookups, secured, tunnels
from tests.interop.datagrams.program import PORT
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace, cable

if TYPE_CHECKING:
    from tests.interop.datagrams.program import Program
    from tests.interop.mux import Record

_PROGRAMS: dict[str, type[Program]] = {
    "calls": answering.Calls,
    "coap": answering.Coap,
    "dtls": secured.Dtls,
    "files": lookups.Files,
    "messages": answering.Messages,
    "ike": tunnels.Ike,
    "names": lookups.Names,
    "openvpn": tunnels.OpenVpn,
    "radius": answering.Radius,
    "snmp": answering.Snmp,
    "streams": secured.Streams,
    "time": answering.Time,
    "turn": secured.Turn,
    "wireguard": tunnels.WireGuard,
}


class ProgramTests(InteropTestCase):
    """One service leads them all; they have a network of their own, so servers can be at the ports that they are used to."""

    programs: ClassVar[dict[str, Program]]
    mux: ClassVar[Mux]
    seen: ClassVar[int] = 0

    @override
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        here, there = Namespace(cls), Namespace(cls)
        cable(here, [f"{tunnels.HERE}/24"], there, [f"{tunnels.THERE}/24"])
        here.enter()
        cls.share(tunnels.EchoServer())
        cls.programs = {
            name: made(cls.folder / name, there, f"127.0.1.{number}")
            for number, (name, made) in enumerate(_PROGRAMS.items(), 1)
        }
        for program in cls.programs.values():
            for server in program.start():
                cls.share(server)
        rules = f"[listen port]\nendpoint = udp:{PORT}\n    udp:123\n"
        rules += "".join(program.routes for program in cls.programs.values())
        cls.mux = cls.share(Mux(cls.folder, rules, f"admin = unix:{cls.folder}/admin"))
        for program in cls.programs.values():
            program.ready()

    def ended(self) -> list[Record]:
        told = output_of(
            *("curl", "--silent", "--fail", "--unix-socket", self.folder / "admin"),
            *("--json", json.dumps({"listener": "port"}), "http://localhost/api/connections/close"),
        )
        count = json.loads(told)["closed"]

        def new() -> list[Record]:
            return self.mux.lines("port")[self.seen :]

        # They are written at the end of a turn, which may be after the answer.
        eventually(
            lambda: sum(line["reason"] == "killed" for line in new()) >= count,
            "all that were ended have their lines",
        )
        lines = new()
        type(self).seen += len(lines)
        return lines

    def assert_works(self, *names: str) -> None:
        programs = [self.programs[name] for name in names]
        with ThreadPoolExecutor(len(programs)) as threads:
            uses = [threads.submit(program.use) for program in programs]
        # The next test must not find them, if one of these has failed.
        lines = self.ended()
        for used in uses:
            used.result()
        for program in programs:
            program.check(lines)
        self.assertEqual(
            {line["route"] for line in lines},
            {route for program in programs for route in program.names},
        )

    def test_calls(self) -> None:
        self.assert_works("calls")

    def test_coap(self) -> None:
        self.assert_works("coap")

    def test_dtls(self) -> None:
        self.assert_works("dtls")

    def test_files(self) -> None:
        self.assert_works("files")

    def test_ike(self) -> None:
        self.assert_works("ike")

    def test_messages(self) -> None:
        self.assert_works("messages")

    def test_names(self) -> None:
        self.assert_works("names")

    def test_openvpn(self) -> None:
        self.assert_works("openvpn")

    def test_radius(self) -> None:
        self.assert_works("radius")

    def test_snmp(self) -> None:
        self.assert_works("snmp")

    def test_streams(self) -> None:
        self.assert_works("streams")

    def test_time(self) -> None:
        self.assert_works("time")

    def test_turn(self) -> None:
        self.assert_works("turn")

    def test_wireguard(self) -> None:
        self.assert_works("wireguard")

    def test_wireguard_moves(self) -> None:
        """When the client gets another address, both tunnels go on, and the log has it."""
        program = self.programs["wireguard"]
        assert isinstance(program, tunnels.WireGuard)
        self.addCleanup(program.rest)
        program.begin()
        program.exchange()
        program.move(tunnels.THERE, tunnels.ELSEWHERE)
        self.addCleanup(program.move, tunnels.ELSEWHERE, tunnels.THERE)
        program.exchange()
        lines = self.ended()
        self.assertEqual(sorted(line["route"] for line in lines), ["home", "office"])
        for line in lines:
            self.assertEqual(line["client"].partition(":")[0], tunnels.THERE)
            self.assertEqual(line["facts"]["moved_to"].partition(":")[0], tunnels.ELSEWHERE)

    def test_all(self) -> None:
        self.assert_works(*_PROGRAMS)
