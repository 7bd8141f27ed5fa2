"""The helper that keeps the privilege opens what Consul is asked with."""

from tests.processes.test_opener import OpenerCase


class TokenTest(OpenerCase):
    def test_consul(self) -> None:
        """It opens a token for Consul; but workers, which do not ask it, get none."""
        tokens = [self.folder / name for name in ("usual.token", "none.token")]
        for token in tokens:
            token.write_text(token.name)
        more = "[route other]\nmatch = ssh\nbackend = consul:short\n"
        consul = "consul = http://127.0.0.1:8500 token=usual.token"
        text = self.rules.read_text().replace("[txmux]", f"[txmux]\n{consul}")
        self.rules.write_text(text + more)
        self.opener.read_rules()
        self.assertEqual(self.text(tokens[0]), "usual.token")
        self.assert_denied(tokens[1])
        self.assert_not_for_workers(tokens)
