"""Clients of media, industry, medicine and networks: each reaches its route on a port that all share."""

from __future__ import annotations

from tests.interop.shared_port import SharedPortTestCase
from tests.programs import require_program

_KERBEROS = """\
[libdefaults]
default_realm = EXAMPLE.COM
dns_lookup_kdc = false
udp_preference_limit = 1
[realms]
EXAMPLE.COM = {{
    kdc = {address}
}}
"""


class RealOtherClientTests(SharedPortTestCase):
    """The programs that people use, as Debian has them."""

    def test_rtmp(self) -> None:
        """curl, with librtmp."""
        self.assert_reaches("rtmp", "curl", "-q", "--noproxy", "*", f"rtmp://{self.address}/live/a")

    def test_kinit(self) -> None:
        """The client of Kerberos that asks for a first ticket."""
        config = self.folder / "krb5.conf"
        config.write_text(_KERBEROS.format(address=self.address))
        kinit = require_program("kinit")
        self.assert_reaches("kerberos", "env", f"KRB5_CONFIG={config}", kinit, "alice@EXAMPLE.COM")

    def test_mbpoll(self) -> None:
        """A client of Modbus that reads registers, and one that writes a coil."""
        server = ("-m", "tcp", "-p", self.port, "-1", "127.0.0.1")
        self.assert_reaches("modbus", "mbpoll", "-a", "1", "-r", "1", "-c", "2", *server)
        self.assert_reaches("modbus", "mbpoll", "-a", "255", "-t", "0", "-r", "100", *server, "1")

    def test_cgi_fcgi(self) -> None:
        """A client of FastCGI."""
        self.assert_reaches(
            *("fastcgi", "env", "REQUEST_METHOD=GET", require_program("cgi-fcgi")),
            *("-bind", "-connect", self.address),
        )

    def test_echoscu(self) -> None:
        """A client of DICOM that verifies a server."""
        self.assert_reaches("dicom", "echoscu", "127.0.0.1", self.port)

    def test_nfs(self) -> None:
        """A client of NFS 4, and one of NFS 3, whose first question is for mountd."""
        ports = f"nfsport={self.port}&mountport={self.port}"
        for version, program in (("4", "nfs"), ("3", "mountd")):
            url = f"nfs://127.0.0.1/export?{ports}&version={version}"
            line = self.assert_reaches("sunrpc", "nfs-ls", url)
            self.assertEqual(line["facts"]["program"], program)
