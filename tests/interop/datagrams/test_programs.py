"""Real programs of all kinds that share one port of UDP, all at once."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from tests.interop.datagrams import answering, secured, tunnels
from tests.interop.datagrams.program import PORT, Program
from tests.support.kit import InteropTestCase, Namespace, Service, cable, eventually, run

_PROGRAMS: tuple[type[Program], ...] = (
    answering.Calls, answering.Coap, secured.Dtls, answering.Files, answering.Messages, tunnels.Ike, answering.Names,
    tunnels.OpenVpn, answering.Radius, answering.Snmp, secured.Streams, answering.Time, secured.Turn,
)  # fmt: skip

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


class ProgramTests(InteropTestCase):
    """One service leads them all; they have a network of their own, so servers can be at the ports that they are used to."""

    def test_all_at_once(self) -> None:
        here, there = Namespace(self), Namespace(self)
        cable(here, [f"{tunnels.HERE}/24"], there, [f"{tunnels.THERE}/24"])
        here.enter()
        self.own(tunnels.EchoServer())
        programs = []
        for number, made in enumerate(_PROGRAMS, 1):
            programs.append(made(self.folder / made.__name__, there, f"127.0.1.{number}"))
            programs[-1].start(self)
        rules = f"[listen port]\nendpoint = udp:{PORT}\n    udp:123\n"
        rules += "".join(program.routes for program in programs)
        mux = self.own(Service(self.folder, rules, admin=True))
        for program in programs:
            program.ready()
        with ThreadPoolExecutor(len(programs)) as threads:
            for used in [threads.submit(program.use) for program in programs]:
                used.result()
        count = mux.api("connections/close", {"listener": "port"})["closed"]
        # They are written at the end of a turn, which may be after the answer.
        eventually(
            lambda: sum(line["reason"] == "killed" for line in mux.lines("port")) >= count,
            "all that were ended have their lines",
        )
        lines = mux.lines("port")
        for program in programs:
            program.check(lines)
        matches = (program.matches for program in programs)
        # The last of a stream whose server has closed its socket begin a flow that nothing recognises.
        ended = {line["client"] for line in lines if line["reason"] == "connect-refused"}
        found = {line["route"] for line in lines if line["route"] or line["client"] not in ended}
        self.assertEqual(found, {*chain.from_iterable(matches)})

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
