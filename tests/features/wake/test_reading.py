from twisted.trial.unittest import SynchronousTestCase

from txmux.features.wake.reading import Wake
from txmux.rules.reading.parser import parse

_RULES = "[listen l]\nendpoint = :1\n[backend b]\nserver = 127.0.0.1:1\nwake = {}\n"


class ReadingTests(SynchronousTestCase):
    def test_forms(self) -> None:
        packet = Wake("wol", "00:11:22:33:44:ff", ("192.168.1.255", 9))
        for text, expected in {
            "wol 00:11:22:33:44:FF 192.168.1.255": packet,
            "wol 00-11-22-33-44-ff 192.168.1.255:9": packet,
            "wol 0011.2233.44ff 192.168.1.255:7": Wake(
                "wol", "00:11:22:33:44:ff", ("192.168.1.255", 7)
            ),
            "http POST https://10.0.0.2/start?x=1": Wake("POST", "https://10.0.0.2/start?x=1"),
            "systemd app@1.service": Wake("systemd", "app@1.service"),
            "http GET http://[::1]:8000/": Wake("GET", "http://[::1]:8000/"),
            "http POST unix:/run/w.sock:/db?x=/:": Wake("POST", "unix:/run/w.sock:/db?x=/:"),
        }.items():
            rules = parse(_RULES.format(text), "rules.ini")
            self.assertEqual(rules.backends["b"].more["wake"], expected)
