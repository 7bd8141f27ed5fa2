"""`server-speaks-first.ini` with MariaDB, TigerVNC, aiosmtpd, vsftpd and nginx."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_mariadb, start_nginx
from tests.programs import require_program

if TYPE_CHECKING:
    from pathlib import Path

_SITE = """
server { listen 127.0.0.1:8080; location / { return 200 "the site\\n"; } }
"""

_FTP = """\
listen=YES
listen_address=192.0.2.1
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={folder}
secure_chroot_dir={folder}
seccomp_sandbox=NO
pasv_min_port=50000
pasv_max_port=50009
pasv_promiscuous=YES
"""

_PUBLIC = "192.0.2.1"
_CLIENT = "203.0.113.7"
_CLIENTS = {"192.0.2.11": "10.1.0.5", "192.0.2.12": "10.2.0.5", "192.0.2.13": "10.3.0.5"}


class _Case(ScenarioTestCase):
    """Clients of each of the networks.

    Not all clients can be told to use an address of their own, so those have another address to connect to, and the way there
    begins at their own.
    """

    addresses = (_PUBLIC, _CLIENT, *_CLIENTS, *_CLIENTS.values())

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for address, client in _CLIENTS.items():
            cls.network.ip(f"route replace local {address} dev lo src {client} table local")


class SiteTests(_Case):
    """The example file, but for its patience: on a busy machine, a browser may need more than half a second to say something."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.share(start_nginx(cls.folder, _SITE))
        rules = (EXAMPLES / "server-speaks-first.ini").read_text()
        patient = cls.folder / "patient.ini"
        patient.write_text(re.sub(r"after=\w+", "after=1h", rules))
        cls.mux = cls.share(Example(patient))

    def test_browser_waits_for_nothing(self) -> None:
        for address, client in _CLIENTS.items():
            said = output_of("curl", "-q", "-sS", f"http://{address}:443/")
            self.assertEqual(said, b"the site\n")
            line = self.mux.take_one()
            self.assertEqual((line["route"], line["client"].rpartition(":")[0]), ("http", client))


class ServerSpeaksFirstTests(_Case):
    """The example file, with every server on its usual port."""

    files: ClassVar[Path]
    mail: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        proxies = "--proxy-protocol-networks=127.0.0.1"
        cls.share(start_mariadb(cls.make_folder("database"), proxies))
        cls.folder.chmod(0o755)
        cls.files = cls.make_folder("files")
        configuration = cls.folder / "vsftpd.conf"
        configuration.write_text(_FTP.format(folder=cls.files))
        cls.share(Child("vsftpd", configuration))
        desktop = Child(
            *("Xtigervnc", "-displayfd", "1", "-rfbport", "5900", "-interface", "127.0.0.1"),
            *("-SecurityTypes", "None", "-geometry", "320x200", "-depth", "24"),
        )
        cls.share(desktop).wait_for("Listening for VNC connections")
        smtp = (require_program("aiosmtpd"), "-n", "-dd", "-l", "127.0.0.1:25")
        cls.mail = cls.share(Child("env", "PYTHONUNBUFFERED=1", *smtp))
        cls.mail.wait_for("Starting asyncio loop")
        cls.mux = cls.share(Example(EXAMPLES / "server-speaks-first.ini"))

    def assert_logged(self, backend: str, client: str) -> None:
        line = self.mux.take_one()
        self.assertEqual((line["backend"], line["client"].rpartition(":")[0]), (backend, client))

    def test_mariadb_knows_the_clients_address(self) -> None:
        said = output_of(
            *("mariadb", "--no-defaults", "--protocol=tcp", "-h", "192.0.2.11", "-P", "443"),
            *("-u", "tests", "-N", "-e", "SELECT user()"),
        )
        self.assertEqual(said, b"tests@10.1.0.5\n")
        self.assert_logged("mysql", "10.1.0.5")

    def test_vnc_picture(self) -> None:
        picture = self.folder / "picture.jpg"
        # This client adds 5900 to what it calls a display, and takes the sum for a port, which has 16 bits.
        display = 443 - 5900 + 2**16
        options = ("-quiet", "-allowblank", "-encodings", "hextile")
        output_of("vncsnapshot", *options, f"192.0.2.12:{display}", picture)
        self.assertTrue(picture.read_bytes().startswith(b"\xff\xd8\xff"))
        self.assert_logged("vnc", "10.2.0.5")

    def test_smtp_delivery(self) -> None:
        output_of(
            *("curl", "-q", "-sS", "smtp://192.0.2.13:443", "--upload-file", "-"),
            *("--mail-from", "a@example.com", "--mail-rcpt", "b@example.com"),
            stdin=b"Subject: greetings\r\n\r\nhello\r\n",
        )
        self.mail.wait_for("^Subject: greetings$")
        self.assert_logged("smtp", "10.3.0.5")

    def test_ftp(self) -> None:
        """Files are fetched in both kinds of passive mode; their bytes do not come through txmux."""
        content = os.urandom(2**20)
        (self.files / "file").write_bytes(content)
        url = f"ftp://{_PUBLIC}:443/file"
        for options in (("--disable-epsv",), ()):
            said = output_of("curl", "-q", "-sS", "--interface", _CLIENT, *options, url)
            self.assertEqual(said, content)
            line = self.mux.take_one()
            self.assertEqual((line["backend"], line["reason"]), ("ftp", "done"))
            self.assertTrue(line["client"].startswith(f"{_CLIENT}:"))
            self.assertLess(int(line["bytes_out"]), 2**12)
