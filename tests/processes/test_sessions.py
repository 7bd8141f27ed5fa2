"""A session of TLS that is terminated outlives the worker that it was made with."""

import socket
import ssl

from tests.support.certificates import authority
from tests.support.kit import SupervisedTestCase
from tests.support.secure import client_context

_RULES = """[listen x]
endpoint = 127.0.0.1:0
default = close
[route tls]
match = tls
terminate_tls = {}
"""


class SessionTest(SupervisedTestCase):
    async def test_worker_that_is_replaced(self) -> None:
        identity = authority().issue("a.example")
        pem = identity.write(self.folder / "a.pem", key=True)
        context = client_context(None)
        (port,) = await self.run_service(_RULES.format(pem))

        def shake(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            plain = socket.create_connection(("127.0.0.1", port), 10)
            with context.wrap_socket(plain, server_hostname="a.example", session=session) as tls:
                tls.sendall(b"?")
                tls.recv(1)
                return tls.session, tls.session_reused

        session, was_resumed = shake(None)
        await self.killed(*self.supervisor.pool.workers)
        self.assertEqual((was_resumed, shake(session)[1]), (False, True))
