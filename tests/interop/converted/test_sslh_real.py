"""sslh beside txmux: files, command lines, and the variables of its start script."""

from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.interop.originals import Named


class FileTests(SideBySideTestCase):
    program = "sslh"

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


class ArgumentTests(SideBySideTestCase):
    program = "sslh"

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
