"""Real programs of all kinds that share one port of UDP, alone and all at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from tests.interop.children import InteropTestCase, eventually, run
from tests.interop.datagrams import answering, secured, tunnels
from tests.interop.datagrams.program import PORT, Program
from tests.interop.namespaces import Namespace, cable
from tests.support.services import Record, Service

_PROGRAMS: dict[str, type[Program]] = {
    "calls": answering.Calls, "coap": answering.Coap, "dtls": secured.Dtls,
    "files": answering.Files, "messages": answering.Messages, "ike": tunnels.Ike,
    "names": answering.Names, "openvpn": tunnels.OpenVpn, "radius": answering.Radius,
    "snmp": answering.Snmp, "streams": secured.Streams, "time": answering.Time,
    "turn": secured.Turn, "wireguard": tunnels.WireGuard,
}  # fmt: skip


def _works(name: str) -> Callable[[ProgramTests], None]:
    return lambda self: self.assert_works(name)


class ProgramTests(InteropTestCase):
    """One service leads them all; they have a network of their own, so servers can be at the ports that they are used to."""

    programs: ClassVar[dict[str, Program]]
    seen: ClassVar[int] = 0

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
        cls.mux = cls.share(Service(cls.folder, rules, admin=True))
        for program in cls.programs.values():
            program.ready()

    def ended(self) -> list[Record]:
        count = self.mux.api("connections/close", {"listener": "port"})["closed"]

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
            {route for program in programs for route in program.matches},
        )

    test_calls = _works("calls")
    test_coap = _works("coap")
    test_dtls = _works("dtls")
    test_files = _works("files")
    test_ike = _works("ike")
    test_messages = _works("messages")
    test_names = _works("names")
    test_openvpn = _works("openvpn")
    test_radius = _works("radius")
    test_snmp = _works("snmp")
    test_streams = _works("streams")
    test_time = _works("time")
    test_turn = _works("turn")
    test_wireguard = _works("wireguard")

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


_TFTP = f"""
[listen port]
endpoint = udp:{PORT}
[route files]
match = tftp
backend = files
[backend files]
server = udp:127.0.0.1:69
unanswered_timeout = 1s
"""


class OtherPortTests(InteropTestCase):
    """A TFTP server that answers from another port than the one that it was asked at, as RFC 1350 says."""

    def test_no_answer(self) -> None:
        Namespace(self).enter()
        (self.folder / "image").write_bytes(b"whole")
        self.own(answering.start_tftp(self.folder, "--interface=lo"))
        mux = self.own(Service(self.folder, _TFTP))
        curl = ("curl", "--silent", "--tftp-no-options", "--max-time")
        self.assertEqual(run(*curl, "20", "tftp://127.0.0.1:69/image").stdout, b"whole")
        self.assertEqual(run(*curl, "1", f"tftp://127.0.0.1:{PORT}/image").stdout, b"")
        line = mux.take_one()
        found = (line["route"], line["reason"], line["datagrams_out"], line["facts"]["path"])
        self.assertEqual(found, ("files", "unanswered", 0, "image"))
