"""sslh beside txmux: files, command lines, and the variables of its start script."""

from tests.interop.converted.sidebyside import SslhTestCase
from tests.interop.originals import Named


class FileTests(SslhTestCase):
    def test_names_alpn_and_both(self) -> None:
        self.prove(
            """
            protocols: (
                { name: "ssh"; host: "127.0.0.1"; port: "<ssh.port>"; },
                { name: "tls"; host: "127.0.0.1"; port: "<both.port>"; sni_hostnames: [ "im.example" ]; alpn_protocols: [ "xmpp-client" ]; log_level: 0; },
                { name: "tls"; host: "127.0.0.1"; port: "<web.port>"; alpn_protocols: [ "h2", "http/1.1" ]; },
                { name: "tls"; host: "127.0.0.1"; port: "<mail.port>"; sni_hostnames: [ "mail.example", "imap.*.example" ]; },
                { name: "tls"; host: "127.0.0.1"; port: "<tls.port>"; }
            );
            """,
            {
                "both": "hello im.example alpn=xmpp-client",
                "tls": "hello im.example, hello",
                "web": "hello a.example alpn=h2,http/1.1",
                "mail": "hello mail.example, hello imap.a.example",
            },
        )

    def test_expressions_and_http(self) -> None:
        self.prove(
            r"""
            protocols: (
                { name: "regex"; host: "127.0.0.1"; port: "<redis.port>"; regex_patterns: [ "^\\*[0-9]" ]; },
                { name: "regex"; host: "127.0.0.1"; port: "<desk.port>"; regex_patterns: [ "^nothing", "^\x03\x00" ]; },
                { name: "http"; host: "127.0.0.1"; port: "<web.port>"; },
                { name: "anyprot"; host: "127.0.0.1"; port: "<rest.port>"; }
            );
            """,
            {"redis": "redis", "web": "http, post", "rest": "text, ssh"},
        )

    def test_place_for_the_silent(self) -> None:
        self.prove(
            """
            foreground: true;
            inetd: false;
            numeric: true;
            timeout: 1;
            on-timeout: "timeout";
            listen: ( { host: "127.0.0.1"; port: "<port>"; } );
            protocols: (
                { name: "ssh"; host: "127.0.0.1"; port: "<ssh.port>"; },
                { name: "tls"; host: "127.0.0.1"; port: "<tls.port>"; },
                { name: "timeout"; host: "127.0.0.1"; port: "<mysql.port>"; }
            );
            """,
            {"ssh": "ssh", "tls": "hello a.example", "mysql": "silent"},
        )

    def test_many_protocols_on_two_ports(self) -> None:
        self.prove(
            """
            foreground: true;
            timeout: 1;
            listen: (
                { host: "127.0.0.1"; port: "<port>"; },
                { host: "127.0.0.1"; port: "<port1>"; }
            );
            protocols: (
                { name: "ssh"; host: "127.0.0.1"; port: "<ssh.port>"; },
                { name: "openvpn"; host: "127.0.0.1"; port: "<vpn.port>"; },
                { name: "xmpp"; host: "127.0.0.1"; port: "<xmpp.port>"; },
                { name: "socks5"; host: "127.0.0.1"; port: "<socks.port>"; },
                { name: "http"; host: "127.0.0.1"; port: "<web.port>"; }
            );
            """,
            {"ssh": "ssh", "xmpp": "xmpp", "socks": "socks", "web": "http"},
            {"vpn": "openvpn", "web": "http", "ssh": "silent"},
        )

    def test_route_without_server(self) -> None:
        """Clients of a server whose address has no counterpart are closed, and reach no other server."""
        self.start(
            """
            foreground: true;
            timeout: 1;
            on-timeout: "http";
            listen: ( { host: "127.0.0.1"; port: "<port>"; } );
            protocols: (
                { name: "ssh"; host: "127.0.0.1"; port: "<ssh.port>"; },
                { name: "http"; host: "127.1"; port: "<web.port>"; },
                { name: "anyprot"; host: "127.0.0.1"; port: "<rest.port>"; }
            );
            """
        )
        self.assertTrue(self.found.has_looks)
        theirs, ours = self.answers([dict.fromkeys(("http", "text", "ssh"), "")])
        self.assertEqual(theirs, [{"http": "web", "text": "rest", "ssh": "ssh"}])
        self.assertEqual(ours, [{"http": "", "text": "rest", "ssh": "ssh"}])


class ArgumentTests(SslhTestCase):
    def test_long_options(self) -> None:
        self.prove(
            "sslh --foreground --timeout 1 --listen 127.0.0.1:<port> --ssh <ssh> --ssl <tls> "
            "--pidfile <folder>/pid\n",
            {"ssh": "ssh, silent", "tls": "hello a.example, text"},
        )

    def test_short_options_and_place_for_the_silent(self) -> None:
        self.prove(
            "sslh -f -n -t1 -p 127.0.0.1:<port> -p 127.0.0.1:<port1> --ssh <ssh> --http <web> --tls <tls> "
            "--anyprot <rest> --on-timeout http\n",
            {"ssh": "ssh", "web": "http, silent", "rest": "text"},
            {"tls": "hello a.example", "web": "silent"},
        )

    def test_file_and_options(self) -> None:
        base = self.own_folder / "base.cfg"
        text = "sslh -f -F<folder>/base.cfg --listen 127.0.0.1:<port> --http <web>\n"
        ports = {name: Named(self, name).port for name in ("ssh", "tls")}
        entries = ", ".join(
            f'{{ name: "{name}"; host: "127.0.0.1"; port: "{port}"; }}'
            for name, port in ports.items()
        )
        base.write_text(f"timeout: 1;\nlisten: ();\nprotocols: ( {entries} );\n")
        self.prove(text, {"ssh": "ssh, silent", "tls": "hello a.example", "web": "http"})

    def test_variables_of_debians_start_script(self) -> None:
        self.prove(
            """
            # Default options for the start script
            DAEMON=/usr/sbin/sslh
            TIME=1

            DAEMON_OPTS="-t $TIME --listen 127.0.0.1:<port> \\
                --ssh <ssh> --openvpn <vpn> --tls <tls> --pidfile <folder>/pid"
            """,
            {"ssh": "ssh, silent", "vpn": "openvpn", "tls": "hello a.example"},
        )
