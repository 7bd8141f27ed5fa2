import socket
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from txmux.net.sockets.transport import SocketPreview


class PreviewTest(SynchronousTestCase):
    def test_reports_only_what_is_new(self) -> None:
        """What was peeked is no event, also once a part of it has been read."""
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            peer = stack.enter_context(socket.create_connection(listening.getsockname()))
            own = stack.enter_context(listening.accept()[0])
            own.settimeout(1)
            preview = SocketPreview(own, 8, lambda: None)
            peer.send(b"hello")
            while not preview.peek_new():
                pass
            self.assertFalse(preview.is_full())
            preview.read_seen(2)
            self.assertEqual((preview.seen, preview.is_full()), (3, False))
            peer.send(b" again")
            while not preview.is_full():
                pass
            self.assertEqual((preview.peek_new(), preview.seen), (b" agai", 8))
            preview.report_every_byte()
            self.assertEqual(own.recv(9), b"llo again")
