"""Backends of a whole service to which TLS is spoken."""

from twisted.internet.ssl import CertificateOptions

from tests.support.certificates import authority
from tests.support.peers import PeerFactory, listen_tls
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.service import HEAD, PUBLIC, ServiceTestCase


class TLSTest(ServiceTestCase):
    async def test_alpn(self) -> None:
        """What was agreed on with the client is offered to the server, unless the rules name something else."""
        ca = authority().write(self.folder / "ca.pem")
        own = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        made, server = authority().issue("www.example.com").private(), PeerFactory()
        options = CertificateOptions(
            made.privateKey.original, made.original, acceptableProtocols=[b"h2", b"imap"]
        )
        port = listen_tls(self, server, options)
        backend = f"server = 127.0.0.1:{port}\ntls = yes\ntls_name = www.example.com\ntls_ca = {ca}"
        rules = f"""{HEAD}{PUBLIC}
[route front]
match = tls
terminate_tls = {own}
alpn = h2, http/1.1
[route same]
match = payload text=same
under = front
backend = same
[route other]
match = payload text=other
under = front
backend = other
[backend same]
{backend}
[backend other]
{backend}
alpn = imap
"""
        (port,) = self.run_service(rules)
        for number, (said, wanted) in enumerate(((b"same", b"h2"), (b"other", b"imap"))):
            client = SecurePeer((client_context(ca, alpn=("h2",)), "a.example"))
            await connect_tls(self, port, client)
            await client.ready()
            client.send(said)
            peer = await server.peer(number)
            await peer.has(len(said))
            self.assertEqual(peer.transport.negotiatedProtocol, wanted)
            await client.has_all(peer.reset)
            client.reset()
            await self.logged(number + 1)
