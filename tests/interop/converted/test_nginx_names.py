"""nginx that looks into the first message of TLS, beside txmux."""

from tests.interop.converted.sidebyside import NginxTestCase


class PrereadTests(NginxTestCase):
    def test_without_hostnames(self) -> None:
        """Without ``hostnames``, a wildcard is an ordinary name for nginx, and is left out for txmux."""
        self.prove(
            """
            map $ssl_preread_server_name $up {
                *.example.com  <wild>;
                default        <rest>;
            }
            server { listen 127.0.0.1:<port>; ssl_preread on; proxy_pass $up; }
            """,
            {"rest": "hello a.example.com, hello b.example.net"},
            looks=1,
        )

    def test_not_read(self) -> None:
        """Without ``ssl_preread`` the variables are empty, and nobody is waited for."""
        self.prove(
            """
            map $ssl_preread_server_name $up {
                a.example  <a>;
                ""         <none>;
                default    <rest>;
            }
            server { listen 127.0.0.1:<port>; proxy_pass $up; }
            """,
            {"none": "hello a.example, silent, http"},
        )
