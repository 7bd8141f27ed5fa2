"""Where an ``sslh.cfg`` listens, and what else stands at its top."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.sslh.pieces import with_protocols
from txmux.rules.model import Keepalive
from txmux_convert.writer import ConvertError


class ListenTests(SynchronousTestCase):
    def endpoints(self, *entries: str) -> list[tuple[str, ...]]:
        text = f"listen: ( {', '.join(f'{{ {entry} }}' for entry in entries)} );"
        return [listener.endpoints for listener in rules_of(converted(text)).listeners]

    def test_forms_of_addresses(self) -> None:
        self.assertEqual(
            self.endpoints(
                'host: "192.0.2.1"; port: "443";',
                'host: "[::]"; port: "443";',
                'host: "2001:db8::1"; port: "444";',
                'host: "example.com"; port: "ssh";',
                'host: "/run/x.sock"; is_unix: true; port: "";',
            ),
            [
                (
                    "192.0.2.1:443", "[::]:443", "[2001:db8::1]:444",
                    "tcp:22:interface=example.com", "unix:/run/x.sock",
                )
            ],
        )  # fmt: skip

    def test_udp_is_a_listener_of_its_own(self) -> None:
        output = converted(
            """
            timeout: 3;
            udp_max_connections: 16;
            listen: ( { host: "::"; port: "1"; keepalive: true; },
                      { host: "192.0.2.1"; port: "2"; is_udp: true; keepalive: false; },
                      { host: "2001:db8::1"; port: "2"; is_udp: true; },
                      { host: "0.0.0.0"; port: "3"; is_udp: true; max_connections: 5; } );
            protocols: ( { name: "ssh"; host: "localhost"; port: "22"; },
                         { name: "wireguard"; host: "localhost"; port: "51820"; is_udp: true; },
                         { name: "tls"; host: "localhost"; port: "444"; } );
            """
        )
        rules = rules_of(output)
        self.assertEqual(
            [listener.endpoints for listener in rules.listeners],
            [("[::]:1",), ("udp:192.0.2.1:2", "udp:[2001:db8::1]:2"), ("udp:0.0.0.0:3",)],
        )
        self.assertEqual([listener.max_flows for listener in rules.listeners], [None, 16, 5])
        self.assertEqual(
            [listener.default.name for listener in rules.listeners],
            ["tls", "wireguard", "wireguard"],
        )
        self.assertEqual([listener.detect_timeout for listener in rules.listeners], [3, 0.3, 0.3])
        self.assertEqual(output.warnings, ())

    def test_udp_names_are_a_look(self) -> None:
        text = 'listen: ( { host: "0.0.0.0"; port: "1"; }, { host: "%s"; port: "https"; is_udp: true; } );'
        output = converted(text % "localhost")
        self.assertIn("endpoint = udp:127.0.0.1:443\n", output.text)
        self.assertEqual(len(looks(output)), 1)
        self.assertIn("write the address of it", looks(converted(text % "example.com"))[0])

    def test_per_endpoint_settings_make_a_listener(self) -> None:
        output = converted(
            """
            listen: ( { host: "127.0.0.1"; port: "1"; max_connections: 5; },
                      { host: "127.0.0.1"; port: "2"; keepalive: false; },
                      { host: "127.0.0.1"; port: "3"; keepalive: true; },
                      { host: "127.0.0.1"; port: "4"; proxyprotocol: true; } );
            """
        )
        listeners = rules_of(output).listeners
        self.assertEqual([listener.max_connections for listener in listeners], [5, 0, 0, 0])
        self.assertEqual(
            [listener.keepalive for listener in listeners],
            [Keepalive(), None, Keepalive(), Keepalive()],
        )
        self.assertEqual(
            [listener.accept_proxy_from is not None for listener in listeners],
            [False, False, False, True],
        )

    def test_nothing_to_convert_without_a_listener(self) -> None:
        error = self.assertRaises(ConvertError, converted, "protocols: ();")
        self.assertIn("nothing in it can be converted", str(error))
        error = self.assertRaises(ConvertError, converted, 'listen: ( { port: "a\nb"; } );')
        self.assertIn(r"listen :a\nb: unknown service name", str(error))

    def test_endpoint_taken_twice(self) -> None:
        output = converted('listen: ( { host: "::1"; port: "1"; }, { host: "::1"; port: "1"; } );')
        self.assertEqual(rules_of(output).listeners[0].endpoints, ("[::1]:1",))
        self.assertEqual(len(output.warnings), 1)

    def test_value_that_is_no_group(self) -> None:
        output = converted('listen: ( "x", { host: "::1"; port: "1"; } );')
        self.assertIn("line 1: 'x' is left out: it should be a group in braces", looks(output))


class TopLevelTests(SynchronousTestCase):
    def test_neutral_settings_are_not_mentioned(self) -> None:
        more = "foreground: true; inetd: false; numeric: false; transparent: false; timeout: 5;"
        self.assertEqual(with_protocols(more=more).warnings, ())

    def test_settings_without_counterpart(self) -> None:
        more = (
            'foreground: false; numeric: true; pidfile: "/x"; chroot: "/x"; syslog_facility: "auth";'
            'logfile: "/x"; version: true; prefix: "x"; inetd: true;'
        )
        names = (
            "foreground, version, numeric, chroot, syslog_facility, prefix, "
            "pidfile (--pidfile of 'txmux run'), logfile (access_log in [txmux])"
        )
        output = with_protocols(more=more)
        look, aside = output.warnings
        self.assertIn("x.cfg:1: LOOK: inetd", look)
        self.assertEqual(aside, f"x.cfg:1: left out: {names}; see 'Run as a service'")
        self.assertIn(f"{aside.partition(' ')[2]}\n\n[listen", output.text)

    def test_transparent_is_for_all_backends(self) -> None:
        self.assertIn("\nsource = client\n", with_protocols(more="transparent: true;").text)

    def test_only_warning(self) -> None:
        for more, message in (
            ("inetd: true;", "LOOK: inetd: inetd listens for it"),
            ("verbose-config: 0; verbose-fd: 1; verbose: 3;", "left out: verbose-* ("),
            ("nonsense: 1;", "nonsense: is not an option of sslh that is known here"),
        ):
            (warning,) = with_protocols(more=more).warnings
            self.assertIn(f"x.cfg:1: {message}", warning)
