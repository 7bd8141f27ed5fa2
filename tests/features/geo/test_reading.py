from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.installed import NETWORKS
from txmux.rules.model import Settings

_READ = NETWORKS["geo"].read


class ReadingTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, name in (
            ("geo:country=fr", "geo:country=FR"), ("geo:continent=EU", "geo:continent=EU"),
            ("as:AS64500", "geo:as=64500"), ("as:AS4294967295", "geo:as=4294967295"),
        ):  # fmt: skip
            self.assertEqual(_READ(text, Settings(), alone=True).name, name)
