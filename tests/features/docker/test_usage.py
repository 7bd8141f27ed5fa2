"""What `txmux provider docker` takes."""

from tests.cli.support import CommandTestCase


class UsageTests(CommandTestCase):
    def test_options_of_the_provider(self) -> None:
        code, out, _ = self.run_main("provider", "docker", "--help")
        self.assertEqual(code, 0)
        for option in ("--write FILE", "--rules FILE", "--network NAME", "--allow-label KEY"):
            self.assertIn(option, out)

    def test_mistakes(self) -> None:
        for words, complaint in (
            (("doker",), "there is no provider 'doker'; did you mean 'docker'?"),
            (("consul",), "there is no provider 'consul' (there are docker, gateway)"),
            (("podman",), "write docker, with --socket unix:/run/podman/podman.sock"),
            (("docker",), "the following arguments are required: --write"),
            (("docker", "--write", "x", "--allow-label", "server"), "invalid choice: 'server'"),
        ):
            code, _, err = self.run_main("provider", *words)
            self.assertEqual(code, 2)
            self.assertIn(complaint, err)
