"""The certificate that an authority is shown."""

import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.client.tls.test_store import Handshake, credulous
from txmux.features.acme.challenges import ChallengeStore


class ChallengeTest(SynchronousTestCase):
    def test_shows_the_digest_by_the_protocol_of_challenges(self) -> None:
        """RFC 8737, section 3."""
        digest, context = bytes(range(32)), credulous()
        context.set_alpn_protocols(["acme-tls/1"])
        store = ChallengeStore.make("a.example", digest.hex())
        client = Handshake(store.connection(None), context).finish()
        self.assertEqual(client.selected_alpn_protocol(), "acme-tls/1")
        shown = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual([*names.value], [x509.DNSName("a.example")])
        (proof,) = [one for one in shown.extensions if one.critical]
        self.assertEqual(proof.oid.dotted_string, "1.3.6.1.5.5.7.1.31")
        assert isinstance(proof.value, x509.UnrecognizedExtension)
        self.assertEqual(proof.value.value, b"\x04\x20" + digest)
        address = ChallengeStore.make("192.0.2.1", digest.hex())
        client = Handshake(address.connection(None), context).finish()
        own = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual([*names.value], [x509.IPAddress(IPv4Address("192.0.2.1"))])
        now, hour = datetime.fromtimestamp(time.time(), UTC), timedelta(hours=1)
        self.assertLess(shown.not_valid_before_utc, now - hour)  # the clocks of others
        self.assertGreater(shown.not_valid_after_utc, now + hour)
