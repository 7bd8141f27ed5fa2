from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmux.control.attention import measured
from txmux.control.gauges import Gauges
from txmux.rules.model import Rules, Settings


class LoginsTest(SynchronousTestCase):
    def test_item(self) -> None:
        reports = [{"logins": [["r", 16, source]]} for source in ("192.0.2.1", "x; reboot")]
        gauges = Gauges.of([{"logins": [["r", 2, "a"]]}, {"logins": [["r", 1, "b"]]}])
        self.assertEqual(gauges.of_features["logins"], {"r": (2, "a")})
        rules = Rules(Path("x.ini"), Settings(), (), ())
        ban = "; keep it out: txmux ban 192.0.2.1 1h"
        for report, advice in zip(reports, (ban, ""), strict=True):
            [item] = measured(Gauges.of([report]), rules, 9.0)
            self.assertEqual((item.what, item.level, item.subject), ("logins", "warning", "r"))
            self.assertEqual(item.text, "route r: 16 logins wait to be checked in a worker")
            self.assertEqual(item.do, f"see who they are: txmux clients{advice}")
