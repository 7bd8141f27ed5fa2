"""The files of listening UNIX sockets: only those of the service itself are removed."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.files import FileId, file_id, remove_socket
from txmux.net.sockets.unixpath import credentials_of, open_listening


class RemoveTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "x.sock"

    def opened(self) -> tuple[socket.socket, FileId]:
        listening = self.enterContext(open_listening(self.path, 0o600, 5))
        return listening, file_id(self.path)

    def test_own_socket(self) -> None:
        _, file = self.opened()
        remove_socket(self.path, file)
        self.assertFalse(self.path.exists())
        remove_socket(self.path, file)

    def test_what_another_program_has_bound_since_stays(self) -> None:
        """Also one without a server, since its program may not have begun to listen."""
        _, file = self.opened()
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            remove_socket(self.path, file)
            self.assertTrue(self.path.is_socket())
            other.listen()
            remove_socket(self.path, file)
            self.assertTrue(self.path.is_socket())

    def test_other_files_stay(self) -> None:
        _, file = self.opened()
        self.path.rename(f"{self.path}.own")
        remove_socket(self.path, file)
        self.path.write_text("x")
        remove_socket(self.path, file_id(self.path))
        self.path.unlink()
        self.path.symlink_to(f"{self.path}.own")
        for seen in (file, file_id(self.path), (0, 0)):
            remove_socket(self.path, seen)
        self.assertTrue(self.path.is_symlink() and self.path.exists())

    def test_credentials_are_those_of_the_listener(self) -> None:
        listening, _ = self.opened()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            self.assertEqual(credentials_of(client), credentials_of(listening))
