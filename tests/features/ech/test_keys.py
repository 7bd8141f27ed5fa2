import itertools
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.features.ech.client import MadeKey, Sealer, inner
from tests.support.folders import make_folder
from tests.wire.hello_builder import records
from txmux.client.tls.terminators import TlsTerminators
from txmux.features.ech.keys import EchKeys, read_key_file
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import Listener, Rules, Settings
from txmux.rules.problems import RulesError


class EchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder, self.clock = make_folder(self), Clock()
        self._times = itertools.count(10**9)

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        seconds = next(self._times)
        os.utime(path, (seconds, seconds))
        return path

    def opens(self, keys: EchKeys, made: MadeKey) -> bool:
        hello = keys.reader(9999).read(records(Sealer(made).hello(inner())))
        assert hello is not None
        return hello.second is not None

    def test_newest_is_published_and_all_open(self) -> None:
        """Of two with one number, the newest alone."""
        covered, first, second = MadeKey(1), MadeKey(1), MadeKey(2, "other.example")
        self.write("c.pem", covered.pem)
        self.write("b.pem", first.pem)
        self.write("a.ech", second.pem)
        self.write("readme.txt", "no key")
        keys = EchKeys(self.folder, self.clock.seconds)
        shown = [(number, name) for number, name, _ in keys.shown()]
        self.assertEqual(shown[:2], [(2, "other.example"), (1, "public.example")])
        opens = [self.opens(keys, one) for one in (covered, first, second)]
        self.assertEqual(opens, [False, True, True])

    def test_changes_are_seen_within_a_second_and_bad_ones_logged_once(self) -> None:
        old, new = MadeKey(1), MadeKey(2)
        path = self.write("a.pem", old.pem)
        keys = EchKeys(self.folder, self.clock.seconds)
        self.write("b.pem", new.pem)
        self.assertFalse(self.opens(keys, new))
        self.clock.advance(1)
        with capturedLogs() as logs:
            self.assertTrue(self.opens(keys, new) and self.opens(keys, old))
        self.assertEqual([eventAsText(one)[-13:] for one in logs], ["keys reloaded"])
        path.unlink()
        self.clock.advance(1)
        self.assertFalse(self.opens(keys, old))
        made = MadeKey(1)
        self.write("a.pem", made.pem)
        keys = EchKeys(self.folder, self.clock.seconds)
        self.write("b.pem", "nonsense")
        with capturedLogs() as logs:
            for _ in range(3):
                self.clock.advance(1)
                self.assertTrue(self.opens(keys, made))
        self.assertEqual(len(logs), 1)
        self.assertIn("b.pem': no private key", keys.trouble)
        (self.folder / "b.pem").unlink()
        self.clock.advance(1)
        self.assertTrue(self.opens(keys, made))
        self.assertEqual(keys.trouble, "")

    def test_wrong_files(self) -> None:
        made, other = MadeKey(), MadeKey()
        private, config = made.pem.split("-----BEGIN ECHCONFIG")
        config = f"-----BEGIN ECHCONFIG{config}"
        strange = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        for content, said in (
            ("", "no private key"), (private, "no ECHCONFIG"), (config, "no private key"),
            (made.pem + private, "line 7: a second private key"),
            (made.pem + config, "line 7: a second ECHCONFIG"),
            (private.replace("MC4CAQAw", "MC4CAQAx") + config,
             "line 1: the private key is damaged"),
            (private.replace("K2Vu", "K2V3") + config, "line 1: the private key is damaged"),
            (strange.decode() + config, "line 1: the private key is not of X25519"),
            (private + config.replace("AEX", "AEY"), "line 4: the ECHCONFIG is damaged"),
            (private + config.replace("AEX", "*"), "line 4: the ECHCONFIG is damaged"),
            (MadeKey(1, "a..b").pem, "line 4: the public name 'a..b' is not the name of a host"),
            (other.pem.split("-----BEGIN ECHC")[0] + config,
             "no configuration for the private key"),
        ):  # fmt: skip
            with self.assertRaises(TLSFileError) as caught:  # fmt: skip
                read_key_file(self.write("a.pem", content))
            self.assertIn(said, str(caught.exception))
            self.assertIn("; write a file as 'txmux ech new' does", str(caught.exception))
        empty = make_folder(self), "the folder has no file *.pem or *.ech"
        for path, said in ((self.folder / "none", "No such file"), empty):
            with self.assertRaises(TLSFileError) as caught:
                EchKeys(path, self.clock.seconds)
            self.assertIn(said, str(caught.exception))

    # Keys at a start and a reload, as certificates.
    def rules(self, path: Path) -> Rules:
        listener = Listener("public", endpoints=(":443",), more={"ech_keys": path})
        return Rules(Path("rules"), Settings(), (listener,), ())

    def test_start_and_reload(self) -> None:
        terminators = TlsTerminators(self.clock)

        def troubles() -> list[str]:
            return [one.trouble for one in terminators.watched() if one.trouble]

        self.assertRaises(RulesError, terminators.prepare, self.rules(self.folder / "none.pem"))
        made = MadeKey(1)
        for content, count in ((made.pem, 0), ("nonsense", 1)):
            rules = self.rules(self.write("a.pem", content))
            prepared = terminators.prepare(rules)
            self.assertEqual((prepared.problems, troubles()), ([], []))
            prepared.commit()
            self.assertEqual(len(troubles()), count)
        [keys] = terminators.openings_of(rules.listeners[0])
        self.assertTrue(self.opens(keys, made))
