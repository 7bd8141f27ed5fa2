"""What clients are shown while an authority checks a name."""

from tests.control.test_connections import CertificatesCase
from tests.support.certificates import make_authority
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.features.acme.challenges import Challenges


class ChallengeTest(CertificatesCase):
    async def test_while_an_authority_checks_a_name(self) -> None:
        """It is shown the certificate of the challenge, which is not one of the rules."""
        pem = self.written(make_authority("Test", "www.example.com"))
        self.inside(pem)
        assert self.running.serving is not None
        challenges = Challenges(self.running.serving.runtime.context)
        challenges.receive({"challenges": {"www.example.com": "00" * 32}})
        context = client_context(None, alpn=("acme-tls/1",))
        peer = await connect_tls(self, self.ports()[0], SecurePeer((context, "www.example.com")))
        await peer.ready()
        self.assertEqual(peer.layers[0].tls.selected_alpn_protocol(), "acme-tls/1")
