import json
from collections.abc import Sequence

from tests.cli.support import CommandTestCase
from tests.matchers.test_dtls import DATAGRAMS as DTLS
from tests.matchers.test_openvpn import DATAGRAMS as OPENVPN

RULES = """
[listen stream]
endpoint = 127.0.0.1:443

[listen flow]
endpoint = udp:127.0.0.1:443
default  = any-vpn

[route vpn]
under   = *
match   = openvpn
backend = udp:127.0.0.1:1194

[route call]
under   = *
match   = dtls sni=sip.example.com
backend = udp:127.0.0.1:5061
from    = 192.0.2.0/24

[route ssh]
under   = *
match   = ssh
backend = 127.0.0.1:22

[backend any-vpn]
server = udp:127.0.0.1:51820
"""


class ExplainTests(CommandTestCase):
    text = RULES

    def test_datagrams(self) -> None:
        """Each as a whole, for listeners of flows; several are only for those, and bytes are for both kinds."""
        vpn, flow = OPENVPN[0].hex(), ("--listener", "flow")
        hello = ("--from", "192.0.2.1", "--hex", DTLS[2].hex())
        cases: tuple[tuple[Sequence[str], Sequence[str], str], ...] = (
            ((*flow, "--hex", vpn), ("listener flow: a datagram of 14 bytes: 8~x", ">  vpn ", " match at datagram 1\n", "at datagram 1: route vpn, to udp:127.0.0.1:1194"), "ssh"),
            (("--text", "hello"), ("listener stream: 5 bytes: hello", "listener flow: a datagram of 5 bytes: hello",
             "decision  at byte 1: default, close", "decision  at datagram 1: default, to backend any-vpn (udp:"), "undecided"),
            # The listener for UDP is one line if only a route over TCP matches.
            (("--text", "SSH-2.0-x"), ("decision  at byte 4: route ssh",
             "\n\nlistener flow: as a datagram: default, to backend any-vpn (udp:127.0.0.1:51820); see --listener flow\n"), "at datagram"),
            (("--text", "SSH-2.0-x", *flow), ("decision  at datagram 1: default",), "route ssh"),
            ((*hello, "--hex", "00"), (f"flow: 2 datagrams of {len(DTLS[2])}, 1 bytes from 192.0.2.1: ",), "listener stream"),
            # An incomplete hello waits for the rest; an empty or keepalive datagram decides nothing.
            ((*hello, *flow), ("undecided, needs up to 4 datagrams", "with these datagrams: undecided, waits for more, for route call",
             "deadline  after 0.3s: default, to backend any-vpn"), "match at"),
            ((*flow, "--text", ""), ("listener flow: a datagram of 0 bytes\n", "with these datagrams: undecided, since they say nothing", "after 0.3s: forgotten"), "match at"),
            ((*flow, "--hex", "0d0a", "--hex", "ff"), ("default, to backend any-vpn",), "undecided"),
        )  # fmt: skip
        for arguments, shown, hidden in cases:
            out = self.explain(*arguments)
            for one in shown:
                self.assertIn(one, out)
            self.assertNotIn(hidden, out)
        told = json.loads(self.explain("--json", "--hex", vpn))["streams"]
        self.assertEqual([one["datagrams"] for one in told], [None, [14]])
        self.assertEqual([one["bytes"] for one in told], [14, 14])
        (listener,) = told[1]["listeners"]
        self.assertEqual((listener["listener"], listener["decision"]["at"]), ("flow", 1))
        err = self.unexplained("--listener", "stream", "--hex", "00", "--hex", "01")
        self.assertIn("several datagrams are for listeners with udp: endpoints", err)
