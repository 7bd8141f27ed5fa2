"""Real programs of all kinds that share one port of UDP, all at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import ClassVar

from tests.interop.children import InteropTestCase, eventually, run
from tests.interop.datagrams import answering, secured, tunnels
from tests.interop.datagrams.program import PORT, Program
from tests.interop.namespaces import Namespace, cable
from tests.support.services import Record, Service

_PROGRAMS: tuple[type[Program], ...] = (
    answering.Calls, answering.Coap, secured.Dtls, answering.Files, answering.Messages, tunnels.Ike, answering.Names,
    tunnels.OpenVpn, answering.Radius, answering.Snmp, secured.Streams, answering.Time, secured.Turn,
)  # fmt: skip


class ProgramTests(InteropTestCase):
    """One service leads them all; they have a network of their own, so servers can be at the ports that they are used to."""

    programs: ClassVar[dict[type[Program], Program]]
    seen: ClassVar[int] = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        here, there = Namespace(cls), Namespace(cls)
        cable(here, [f"{tunnels.HERE}/24"], there, [f"{tunnels.THERE}/24"])
        here.enter()
        cls.share(tunnels.EchoServer())
        cls.programs = {
            made: made(cls.folder / made.__name__, there, f"127.0.1.{number}")
            for number, made in enumerate(_PROGRAMS, 1)
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

    def test_all_at_once(self) -> None:
        with ThreadPoolExecutor(len(self.programs)) as threads:
            uses = [threads.submit(program.use) for program in self.programs.values()]
        # The next test must not find them, if one of these has failed.
        lines = self.ended()
        for used in uses:
            used.result()
        for program in self.programs.values():
            program.check(lines)
        matches = (program.matches for program in self.programs.values())
        self.assertEqual({line["route"] for line in lines}, {*chain.from_iterable(matches)})


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
