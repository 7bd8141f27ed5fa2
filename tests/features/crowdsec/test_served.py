from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import LISTEN, AdminCase
from tests.features.crowdsec.test_source import decision
from tests.serving.test_networks import LISTEN as WITH_SETTINGS
from tests.serving.test_networks import ServedNetworks
from tests.support.crowdsec import KEY, CrowdSecPlayed
from tests.support.folders import make_folder
from tests.support.peers import reactor
from tests.support.supervised import SupervisedTestCase
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load

_DENIED = (
    "[txmux]\ncrowdsec_key = k\n[listen a]\nendpoint = :8443\ndeny = crowdsec:http://127.0.0.1\n"
)


class CrowdSecTest(SupervisedTestCase):
    async def test_decisions(self) -> None:
        """Whom it bans is kept out, and what it takes back is let in; what it told goes on over a reload. If it is away for a minute, somebody has to look."""
        networks, played = ServedNetworks(self), CrowdSecPlayed(self)
        (self.folder / "key").write_text(KEY)
        listener = f"deny = 192.0.2.0/24, crowdsec:{played.url}\n"
        settings = "crowdsec_key = key\n"
        port = await networks.begin(listener, settings=settings)
        self.assertTrue(await networks.is_let_in(port))
        await networks.after(11, lambda: len(played.asked) == 2)
        played.new = [decision("127.0.0.0/8")]
        await networks.after(11, networks.denies)
        self.assertFalse(await networks.is_let_in(port))
        played.new = None
        rules = WITH_SETTINGS % settings + listener + "peek_limit = 7\n" + networks.route % ""
        await self.change(rules)
        self.assertTrue(networks.denies())
        played.deleted = [decision("127.0.0.0/8")]
        await networks.after(11, lambda: not networks.denies())
        self.assertTrue(await networks.is_let_in(port))
        self.assertEqual(played.asked.count("true"), 1)
        played.wrong = 500
        (source,) = self.running.control.lists.sources()
        await networks.after(71, lambda: source.state().is_overdue)
        (told,) = (await self.running.control.status())["attention"]
        self.assertIn(f"crowdsec {played.url}: no good answer for ", told["text"])
        self.assertEqual(told["cause"], "it answers 500")
        played.wrong = None
        await networks.after(81, lambda: not source.state().is_overdue)
        self.assertEqual((await self.running.control.status())["attention"], [])


class SandboxTest(AdminCase):
    async def test_crowdsec_feed(self) -> None:
        played = CrowdSecPlayed(self)
        (self.folder / "key").write_text(KEY)
        rules = f"{LISTEN}deny = crowdsec:{played.url}\n"
        self.assertEqual(await self.confined("crowdsec_key = key", rules), [True])
        while not played.asked:
            await deferLater(reactor, 0.01)


class WarningTests(SynchronousTestCase):
    def test_key_that_cannot_be_read(self) -> None:
        """It is named, so no other message says that it has to be."""
        path = make_folder(self) / "rules.ini"
        path.write_text(_DENIED.replace("= k\n", "= none\n"))
        (said,) = str(self.assertRaises(RulesError, load, path)).splitlines()
        self.assertIn("[txmux] crowdsec_key: cannot read ", said)
