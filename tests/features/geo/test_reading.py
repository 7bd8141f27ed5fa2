"""How places are written."""

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.installed import NETWORKS
from txmux.rules.model import Settings
from txmux.rules.problems import InvalidValueError

_READ = NETWORKS["geo"].read


class ReadingTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, name in (
            ("geo:country=fr", "geo:country=FR"), ("geo:continent=EU", "geo:continent=EU"),
            ("as:AS64500", "geo:as=64500"), ("as:AS4294967295", "geo:as=4294967295"),
        ):  # fmt: skip
            self.assertEqual(_READ(text, Settings(), alone=True).name, name)
        for text, why in (
            ("geo:country=FRA", "'FRA' is not the code of a country; write two letters"),
            ("geo:continent=E", "for example 'geo:continent=EU'"),
            ("geo:county=FR", "is not a place; did you mean 'country'?"),
            ("geo:FR", "is not a place"),
            ("as:AS0", "is not the number of an autonomous system"),
            ("as:AS4294967296", "is not the number of an autonomous system"),
            ("as:x", "write for example 'as:AS64500'"),
        ):
            error = self.assertRaises(InvalidValueError, _READ, text, Settings(), alone=True)
            self.assertIn(why, str(error))
