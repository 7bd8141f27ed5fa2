"""Finding the installed matchers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.registry import DuplicateMatcherError, _by_name, installed_matchers
from txmux.matchers.any import AnyMatcher
from txmux.matchers.ssh import SshMatcher


class RegistryTest(SynchronousTestCase):
    """By name, and each name once."""

    def test_installed(self) -> None:
        """The matchers that come with txmux are found the way any plugin is."""
        found = installed_matchers()
        self.assertEqual(list(found), sorted(found))
        self.assertTrue({"any", "http", "payload", "redis", "regex", "ssh", "tls"} <= found.keys())

    def test_duplicate(self) -> None:
        """Two plugins of one name are an error that names both."""

        class Impostor(AnyMatcher):
            name = "ssh"

        with self.assertRaises(DuplicateMatcherError) as caught:
            _by_name([SshMatcher(), Impostor()])
        message = str(caught.exception)
        self.assertIn("txmux.matchers.ssh.SshMatcher", message)
        self.assertIn("Impostor", message)
