"""Whom an ``sslh.cfg`` leads where."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.sslh.pieces import match_of, with_protocol, with_protocols
from txmux.rules.model import Backend
from txmux.rules.reading.values import split_words


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

    def test_unknown_probe_is_a_route_in_comments(self) -> None:
        output = with_protocol('name: "gopher";')
        self.assertEqual(len(rules_of(output).routes), 1)
        self.assertIn("# match = gopher\n", output.text)
        self.assertIn("line 2: match = gopher: unknown matcher 'gopher'", looks(output)[0])

    def test_udp_server_and_idle_timeout(self) -> None:
        for settings, server, timeout in (
            ('name: "wireguard";', "udp:localhost:1", 60),
            ('name: "openvpn"; is_udp: true; udp_timeout: 9;', "udp:localhost:1", 9),
        ):
            output = converted(
                'listen: ( { host: "::"; port: "1"; is_udp: true; } );\n'
                f'protocols: ( {{ {settings} host: "localhost"; port: "1"; }} );'
            )
            (backend,) = rules_of(output).backends.values()
            self.assertEqual((backend.servers[0].text, backend.idle_timeout), (server, timeout))
            self.assertEqual([route.name for route in rules_of(output).routes], [backend.name])

    def test_options_and_patterns(self) -> None:
        for settings, lines in (
            (
                'name: "tls"; sni_hostnames: [ "a.example", "*.b.example" ]; alpn_protocols: [ "h2" ];',
                ["tls sni=a.example,*.b.example alpn=h2"],
            ),
            ('name: "tls"; sni_hostnames: [ "www[12].example", "a.example" ];',
             ["tls sni=a.example", "tls sni=~www[12]\\.example"]),
            (r'name: "regex"; regex_patterns: [ "^\x00[\x0D-\xFF]\x38", "jabber", "" ];',
             [r"regex pattern=^\x00[\x0d-\xff]8", "regex pattern=(?s:.*)(?:jabber)", "any"]),
            ('name: "regex"; regex_patterns: [ "^a|b", "(?i)^c d" ];',
             ["regex pattern=(?s:.*)(?:^a|b)", "regex pattern='(?i)^c d'"]),
        ):  # fmt: skip
            self.assertEqual(match_of(settings), lines)

    def test_quotes_in_a_pattern(self) -> None:
        output = with_protocol(r"""name: "regex"; regex_patterns: [ "^'a", "^\"b c" ];""")
        lines = rules_of(output).routes[1].alternatives
        self.assertEqual([line.predicate.longest for line in lines], [256, 256])
        self.assertEqual(split_words(lines[0].text)[1], "pattern=^'a")
        self.assertEqual(split_words(lines[1].text)[1], 'pattern=^"b c')

    def test_refused_regex_is_a_comment(self) -> None:
        output = with_protocol('name: "regex"; regex_patterns: [ "^a$", "^b" ];')
        self.assertIn("looks past the end of its own match", looks(output)[0])
        self.assertEqual(len(rules_of(output).routes), 2)
        only = with_protocol('name: "regex"; regex_patterns: [ "^a(?=b)" ];')
        self.assertEqual(len(rules_of(only).routes), 1)
        self.assertIn("# match = regex pattern=^a(?=b)\n", only.text)

    def test_servers(self) -> None:
        rules = rules_of(
            with_protocols(
                '{ name: "http"; host: "/run/x.sock"; is_unix: true; port: ""; log_level: 0; }',
                '{ name: "tls"; host: "::1"; port: "xmpp-client"; proxyprotocol: 2; }',
                '{ name: "socks5"; host: "::1"; port: 1080; }',
            )
        )
        servers = [backend.servers[0].text for backend in rules.backends.values()]
        self.assertEqual(servers, ["localhost:22", "unix:/run/x.sock", "[::1]:5222", "[::1]:1080"])
        self.assertEqual([route.log for route in rules.routes], [True, False, True, True])
        self.assertEqual(rules.backends["tls"].proxy_protocol, "v2")

    def test_keys_with_a_counterpart(self) -> None:
        output = with_protocol('name: "http"; max_connections: 7; transparent: true;')
        self.assertIn("\nmax_connections = 7\n", output.text)
        self.assertIn("\nsource = client\n", output.text)

    def test_settings_without_counterpart(self) -> None:
        output = with_protocol('name: "http"; fork: true; tfo_ok: true;')
        self.assertEqual(
            output.warnings, ("x.cfg:2: left out: fork, tfo_ok; see 'Run as a service'",)
        )
        for setting in ("minlength: 9;", "keepalive: false;"):
            output = with_protocol(f'name: "http"; {setting}')
            name = setting.partition(":")[0]
            self.assertIn(f"x.cfg:2: {name}: has no counterpart", output.warnings[0])
            self.assertIn(f"# line 2: {name}: has no counterpart", output.text)

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

    def test_neutral_settings_are_not_mentioned(self) -> None:
        settings = (
            "fork: false; tfo_ok: false; keepalive: true; resolve_on_forward: true; log_level: 1;"
        )
        self.assertEqual(
            with_protocol(f'name: "http"; {settings} transparent: false;').warnings, ()
        )

    def test_service_in_hosts_deny_is_a_look(self) -> None:
        output = with_protocol('name: "http"; service: "x";')
        self.assertIn("service: hosts.allow and hosts.deny are not read", looks(output)[0])

    def test_passed_header_is_sent_to_servers(self) -> None:
        listen = 'listen: ( { host: "::1"; port: "1"; proxyprotocol: true; } );'
        output = converted(
            f"""
            {listen}
            protocols: (
                {{ name: "ssh"; host: "::1"; port: "22"; proxyprotocol: 0; }},
                {{ name: "http"; host: "::1"; port: "80"; proxyprotocol: 1; }},
                {{ name: "tls"; host: "::1"; port: "443"; }}
            );
            """
        )
        backends = rules_of(output).backends
        self.assertEqual([b.proxy_protocol for b in backends.values()], ["off", "v1", "v2"])
        (look,) = looks(output)
        self.assertIn("the header that comes in is passed to this server", look)
        self.assertEqual(with_protocol('name: "http"; proxyprotocol: 0;').warnings, ())

    def test_proxyprotocol_true_names_no_version(self) -> None:
        output = with_protocol('name: "http"; proxyprotocol: true;')
        self.assertIn("names no version; write proxy_protocol = v1 or v2", looks(output)[0])
        self.assertNotIn("True", output.text)

    def test_wrong_kinds_and_unknown_options(self) -> None:
        output = with_protocol('name: "http"; transparent: "x"; max_connections: -1; nonsense: 1;')
        for name in ("transparent", "max_connections", "nonsense"):
            self.assertTrue(any(f" {name}: " in warning for warning in output.warnings), name)

    def test_unknown_service_closes_its_clients(self) -> None:
        output = with_protocols('{ name: "http"; host: "localhost"; port: "no-such-service"; }')
        self.assertEqual(list(rules_of(output).backends), ["ssh"])
        self.assertIn("# [backend http]\n", output.text)
        self.assertIn("match = http\nbackend = close\n", output.text)
        self.assertIn(
            "localhost:no-such-service: unknown service name 'no-such-service'", looks(output)[0]
        )


class DecisionTests(SynchronousTestCase):
    def outcomes(self, more: str = "", *protocols: str) -> tuple[str, str]:
        listener = rules_of(with_protocols(*protocols, more=more)).listeners[0]
        (silence,) = listener.silent
        assert isinstance(silence.outcome, Backend)
        assert isinstance(listener.default, Backend)
        return silence.outcome.name, listener.default.name

    def test_default_is_last_and_silent_is_ssh(self) -> None:
        tls = '{ name: "tls"; host: "localhost"; port: "443"; }'
        self.assertEqual(self.outcomes("", tls), ("ssh", "tls"))

    def test_anyprot_at_the_end_needs_no_route(self) -> None:
        last = '{ name: "anyprot"; host: "localhost"; port: "443"; }'
        self.assertEqual(self.outcomes("", last), ("ssh", "anyprot"))
        self.assertEqual(len(rules_of(with_protocols(last)).routes), 1)

    def test_on_timeout_names_or_means_the_first(self) -> None:
        last = '{ name: "timeout"; host: "localhost"; port: "daytime"; }'
        for key in ("on-timeout", "on_timeout"):
            self.assertEqual(self.outcomes(f'{key}: "timeout";', last)[0], "timeout")
        self.assertEqual(self.outcomes('on-timeout: "x";', last)[0], "ssh")

    def test_timeout_is_detect_timeout(self) -> None:
        for seconds in (2.0, 3.0, 5.0):
            listener = rules_of(with_protocols(more=f"timeout: {seconds:.0f};")).listeners[0]
            self.assertEqual(listener.detect_timeout, seconds)
        self.assertIn("detect_timeout = 0s", with_protocols(more="timeout: 0;").text)
