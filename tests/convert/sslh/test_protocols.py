from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import rules_of
from tests.convert.sslh.pieces import match_of, with_protocol


class ProtocolTests(SynchronousTestCase):
    def test_probes_become_matchers(self) -> None:
        for name in ("ssh", "http", "tls", "syslog"):
            self.assertEqual(match_of(f'name: "{name}";'), [name])
        self.assertEqual(match_of('name: "ssl";'), ["tls"])
        self.assertEqual(match_of('name: "anyprot";'), ["any"])

    def test_all_probes_of_sslh(self) -> None:
        for name, matcher in (
            ("openvpn",) * 2, ("tinc",) * 2, ("xmpp",) * 2, ("adb",) * 2, ("socks5",) * 2,
            ("msrdp", "rdp"),
        ):  # fmt: skip
            self.assertIn(f"match = {matcher}", with_protocol(f'name: "{name}";').text)

    def test_least_length_is_a_part_of_the_pattern(self) -> None:
        for patterns, pattern in (
            ('"^foo"', r"^foo(?s:.{2})"),
            ('"^fooba"', "^fooba"),
            (r'"^[a-c]o|^x\\.y"', None),  # of any length, since it is looked for
            ('"jabber"', None),
        ):
            output = with_protocol(f'name: "regex"; regex_patterns: [ {patterns} ]; minlength: 5;')
            said = [line for line in output.warnings if "minlength" in line]
            self.assertEqual(len(said), pattern is None, patterns)
            if pattern:
                (route,) = rules_of(output).routes[1:]
                self.assertEqual(route.alternatives[0].text.partition("pattern=")[2], pattern)
        long = with_protocol('name: "regex"; regex_patterns: [ "^a" ]; minlength: 400;')
        self.assertIn("match = regex pattern=^a(?s:.{399}) within=400\n", long.text)
