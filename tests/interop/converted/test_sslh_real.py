"""sslh beside txmux, where they differ."""

from tests.interop.converted.sidebyside import SideBySideTestCase


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
