"""What is said of an authority that cannot be asked."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from txmux.rules.model import Settings
from txmux.serving.acme.authority import Authority, AuthorityError
from txmux.serving.acme.folder import AcmeFolder


class UnaskedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)

    def serve(self, answer: Callable[[socket.socket], object]) -> None:
        """Serve one client, in a thread."""

        def run() -> None:
            with self.listening.accept()[0] as client, contextlib.suppress(OSError):
                answer(client)

        thread = Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)

    def said(self, ca: Path | None = None, known: Any = None) -> str:
        url = f"https://127.0.0.1:{self.listening.getsockname()[1]}/dir"
        folder = AcmeFolder(self.folder / "acme")
        folder.make()
        asked = Authority(Settings(acme=url, acme_ca=ca, acme_terms=True), folder)
        asked._client = known
        error = self.assertRaises(AuthorityError, asked.order, "www.example.com")
        self.assertFalse(error.counts)
        return str(error).removeprefix(f"{url}: ")

    def test_nobody_listens(self) -> None:
        self.listening.close()
        self.listening = socket.socket()
        self.addCleanup(self.listening.close)
        self.listening.bind(("127.0.0.1", 0))
        self.assertEqual(self.said(), "cannot be reached: Connection refused")

    def test_no_tls(self) -> None:
        self.serve(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        self.assertRegex(self.said(), "^cannot be reached: .*WRONG_VERSION_NUMBER")

    def test_unknown_certificate(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        identity = make_authority().issue("127.0.0.1")
        context.load_cert_chain(identity.write(self.folder / "own.pem", key=True))
        self.serve(lambda client: context.wrap_socket(client, server_side=True).close())
        self.assertRegex(
            self.said(), r"^its own certificate is not valid \(unable .*; for .* as 'acme_ca'$"
        )

    def test_root_that_cannot_be_used(self) -> None:
        """The file is looked at each time, since it may have changed after the authority was asked first."""
        path = self.folder / "root.pem"
        for known in (None, object()):
            self.assertEqual(
                self.said(path, known),
                f"acme_ca: '{path}' cannot be used: No such file or directory",
            )
        path.touch()
        self.assertRegex(self.said(path), "^acme_ca: '.*' cannot be used: .*no certificate")
