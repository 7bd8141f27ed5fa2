import os
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from unittest import SkipTest

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.client.tls.test_store import Handshake, credulous
from tests.support.kit import SecurePeer, client_context, connect_tls, make_authority, make_folder
from tests.support.service import ServiceTestCase
from txmux.features.acme.challenges import Challenges, ChallengeStore, names_kept_from
from txmux.rules.packing import pack, unpack
from txmux.rules.reading.parser import load


class KeptTest(SynchronousTestCase):
    def test_listeners_where_others_have_no_route(self) -> None:
        """There, nobody shows an authority that a name belongs to the author of a unit; those of the operator are shown at all."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        folder = make_folder(self)
        (folder / "d").mkdir()
        route = "[route {0}]\nunder = {1}\nmatch = tls\nterminate_tls = acme {0}.example\nbackend = close\n".format
        main = "[txmux]\ninclude = d/*.ini\nacme = https://ca.example/\nacme_terms = yes\n"
        listen = "[listen {}]\nendpoint = :{}\nroutes_from = {}\n".format
        path, unit = folder / "rules.ini", folder / "d/a.ini"
        listeners = listen("p", 1, "a") + listen("q", 2, "b")
        path.write_text(main + listeners + route("ours", "p"))
        outer = "[route x]\nunder = own\nmatch = tls\nterminate_tls = acme outer.example\n"
        unit.write_text(
            "[listen own]\nendpoint = :3\n" + outer + route("deep", "x") + route("theirs", "own, p")
        )
        for author, expected in ((0, ()), (12345, ("theirs", "outer", "deep"))):
            os.chown(unit, author, -1)
            rules = unpack(pack(load(path)))
            kept = {one.name: names_kept_from(rules, one) for one in rules.listeners}
            names = {f"{name}.example" for name in expected}
            self.assertEqual(kept, {"p": names - {"theirs.example"}, "q": names, "own": set()})

    def test_shows_the_digest_by_the_protocol_of_challenges(self) -> None:
        """RFC 8737, section 3."""
        digest, context = bytes(range(32)), credulous()
        context.set_alpn_protocols(["acme-tls/1"])
        for name, expected in (
            ("192.0.2.1", x509.IPAddress(IPv4Address("192.0.2.1"))),
            ("a.example", x509.DNSName("a.example")),
        ):
            store = ChallengeStore.make(name, digest.hex())
            client = Handshake(store.connection(None), context).finish()
            self.assertEqual(client.selected_alpn_protocol(), "acme-tls/1")
            shown = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
            names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            self.assertEqual([*names.value], [expected])
        (proof,) = [one for one in shown.extensions if one.critical]
        self.assertEqual(proof.oid.dotted_string, "1.3.6.1.5.5.7.1.31")
        assert isinstance(proof.value, x509.UnrecognizedExtension)
        self.assertEqual(proof.value.value, b"\x04\x20" + digest)
        now, hour = datetime.fromtimestamp(time.time(), UTC), timedelta(hours=1)
        self.assertLess(shown.not_valid_before_utc, now - hour)  # the clocks of others
        self.assertGreater(shown.not_valid_after_utc, now + hour)


class ShownTest(ServiceTestCase):
    async def test_while_an_authority_checks_a_name(self) -> None:
        """It is shown the certificate of the challenge, which is not one of the rules."""
        pem = make_authority("Test", "www.example.com").write(make_folder(self) / "pem", key=True)
        self.run_service(
            "[txmux]\naccess_log = off\n[listen public]\nendpoint = 127.0.0.1:0\n"
            f"[route site]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        )
        assert self.running.serving is not None
        challenges = Challenges(self.running.serving.runtime.context)
        challenges.receive({"challenges": {"www.example.com": "00" * 32}})
        context = client_context(None, alpn=("acme-tls/1",))
        peer = await connect_tls(self, self.ports()[0], SecurePeer((context, "www.example.com")))
        await peer.ready()
        self.assertEqual(peer.layers[0].tls.selected_alpn_protocol(), "acme-tls/1")
