import json

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

    def test_datagram_as_a_whole(self) -> None:
        out = self.explain("--listener", "flow", "--hex", OPENVPN[0].hex())
        self.assertIn("listener flow: a datagram of 14 bytes: 8~x", out)
        self.assertRegex(out, ">  vpn +openvpn +match at datagram 1\n")
        self.assertNotIn("ssh", out)
        self.assertIn("decision  at datagram 1: route vpn, to udp:127.0.0.1:1194", out)
        # JSON counts datagrams.
        told = json.loads(self.explain("--json", "--hex", OPENVPN[0].hex()))["streams"]
        self.assertEqual([one["datagrams"] for one in told], [None, [14]])
        self.assertEqual([one["bytes"] for one in told], [14, 14])
        (listener,) = told[1]["listeners"]
        self.assertEqual((listener["listener"], listener["decision"]["at"]), ("flow", 1))
        # Bytes for both kinds of listeners.
        out = self.explain("--text", "hello")
        self.assertIn("listener stream: 5 bytes: hello", out)
        self.assertIn("listener flow: a datagram of 5 bytes: hello", out)
        self.assertIn("decision  at byte 1: default, close", out)
        self.assertIn("decision  at datagram 1: default, to backend any-vpn (udp:", out)
        # The listener for UDP is one line if only a route over TCP matches.
        out = self.explain("--text", "SSH-2.0-x")
        self.assertIn("decision  at byte 4: route ssh", out)
        flow = "listener flow: as a datagram: default, to backend any-vpn (udp:127.0.0.1:51820); see --listener flow\n"
        self.assertTrue(out.endswith(f"\n\n{flow}"), out)
        out = self.explain("--text", "SSH-2.0-x", "--listener", "flow")
        self.assertIn("decision  at datagram 1: default", out)

    def test_several_datagrams(self) -> None:
        # They are only for a flow.
        out = self.explain("--from", "192.0.2.1", "--hex", DTLS[2].hex(), "--hex", "00")
        self.assertIn(f"flow: 2 datagrams of {len(DTLS[2])}, 1 bytes from 192.0.2.1: ", out)
        self.assertNotIn("listener stream", out)
        err = self.unexplained("--listener", "stream", "--hex", "00", "--hex", "01")
        self.assertIn("several datagrams are for listeners with udp: endpoints", err)
        # An incomplete hello waits for the rest.
        out = self.explain("--from", "192.0.2.1", "--hex", DTLS[2].hex(), "--listener", "flow")
        self.assertIn("undecided, needs up to 4 datagrams", out)
        self.assertIn("with these datagrams: undecided, waits for more, for route call", out)
        self.assertIn("deadline  after 0.3s: default, to backend any-vpn", out)
        # An empty or keepalive datagram decides nothing.
        out = self.explain("--listener", "flow", "--text", "")
        self.assertIn("listener flow: a datagram of 0 bytes\n", out)
        self.assertIn("with these datagrams: undecided, since they say nothing", out)
        self.assertIn("after 0.3s: forgotten", out)
        self.assertNotIn("match at", out)
        out = self.explain("--listener", "flow", "--hex", "0d0a", "--hex", "ff")
        self.assertIn("default, to backend any-vpn", out)
        self.assertNotIn("undecided", out)
