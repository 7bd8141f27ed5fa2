from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model.client_certificate import NO_CERTIFICATE, REVOKED, FoundCertificate
from txmux.rules.reading.route import certificate_condition


class HoldsTest(SynchronousTestCase):
    def test_who_fits(self) -> None:
        """Of each kind that is named, one name has to fit; nobody fits who was not asked for a certificate."""
        names = {"subject": ("CN=a",), "dns": ("a.test", "b.test"), "uri": ()}
        shown = FoundCertificate(frozenset({"any"}), names)
        clients = {"none": NO_CERTIFICATE, "revoked": REVOKED, "shown": shown, "unasked": None}
        for text, fitting in (
            ("any", {"shown"}), ("none", {"none", "revoked"}), ("revoked", {"revoked"}),
            ("san=b.*", {"shown"}), ("san=c.*", set()), ("san=uri:*", set()),
            ("subject=CN=a san=a.test", {"shown"}), ("subject=CN=b san=a.test", set()),
        ):  # fmt: skip
            condition = certificate_condition(text)
            found = {name for name, client in clients.items() if condition.holds(client)}
            self.assertEqual(found, fitting, text)
