"""What is known of a certificate's renewal, and what a file may say of it."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.errors import MuxError
from txmux.rules.model import Route, Rules, Settings, TlsEnd
from txmux.serving.acme.folder import NO_CERTIFICATE, ShownCertificate
from txmux.serving.acme.renewal import Certificates, Renewal

_SHOWN = ShownCertificate(b"", ("a.example",), "CN=x", 0.0, 90.0, is_self_signed=False)
_VALUES = st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text()


class RenewalTests(SynchronousTestCase):
    @given(st.dictionaries(st.sampled_from([*Renewal().as_json(), "other"]), _VALUES) | _VALUES)
    def test_any_file(self, values: object) -> None:
        """Whatever a file holds, it can be asked when the certificate is due."""
        found = Renewal.read(values)
        found.due(_SHOWN, found.directory)
        self.assertEqual(Renewal.read(found.as_json()), found)

    def test_due(self) -> None:
        """With a third of its time left, or sooner if the authority says so; but not before it may be asked again."""
        renewal = Renewal(directory="a")
        self.assertEqual(renewal.due(_SHOWN, "a"), 60.0)
        self.assertEqual(Renewal("a", suggested=10.0).due(_SHOWN, "a"), 10.0)
        self.assertEqual(Renewal("a", suggested=80.0).due(_SHOWN, "a"), 60.0)
        self.assertEqual(Renewal("a", not_before=70.0, suggested=10.0).due(_SHOWN, "a"), 70.0)
        self.assertEqual(renewal.due(_SHOWN, "b"), 0.0)
        self.assertEqual(renewal.due(NO_CERTIFICATE, "a"), 0.0)

    def test_removed(self) -> None:
        """Who waits for a certificate that new rules do not ask for any more is told so."""
        end = TlsEnd((Path("a.example.pem"),), acme=("a.example",))
        settings = Settings(acme="https://a.example/dir", acme_folder=make_folder(self))
        route = Route("site", (), None, terminate_tls=end)
        made = Certificates(None, lambda _: succeed(None), lambda: None)
        made.use(Rules(Path("x.ini"), settings, (), (route,)))
        waiting = made.renew("a.example")
        self.assertNoResult(waiting)
        made.use(Rules(Path("x.ini"), settings, (), ()))
        self.assertIn("no longer ask for a certificate for a.example", str(self.failureResultOf(waiting, MuxError)))
