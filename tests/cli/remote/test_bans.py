from tests.cli.support import CommandTestCase
from tests.support.changes import set_wall_clock


class BansTests(CommandTestCase):
    def test_network_duration_and_reason(self) -> None:
        server = self.answering(document={"ok": True, "changes": "192.0.2.7 is banned"})
        for words, body in (
            (["192.0.2.7"], {"network": "192.0.2.7"}),
            (["192.0.2.7", "1h"], {"network": "192.0.2.7", "seconds": 3600}),
            (["192.0.2.7", "300ms"], {"network": "192.0.2.7", "seconds": 1}),
            (["192.0.2.7", "2d", "all", "passwords"],
             {"network": "192.0.2.7", "seconds": 172800, "reason": "all passwords"}),
        ):  # fmt: skip
            self.assertEqual(self.ask("ban", *words), (0, "192.0.2.7 is banned\n", ""))
            asked = server.asked.pop()
            self.assertEqual((asked.path, asked.body), ("/api/bans", body))
        # An invalid duration is wrong usage; no reason is not.
        self.assertIn("DURATION", self.told(2, self.ask("ban", "192.0.2.7", "passwords")))
        _, _, err = self.ask("ban", "192.0.2.7", "30", "abuse")
        self.assertTrue(err.endswith("10m, 1h or 2d; a reason comes after it\n"), err)
        self.assertEqual([one for one in server.asked if one.method == "POST"], [])
        _, _, err = self.ask("ban")
        self.assertTrue(err.endswith(" are required: ADDRESS|NETWORK\n"), err)

    def test_list_with_the_time_left(self) -> None:
        # It is lifted; if there is none, the service says so.
        server = self.answering(document={"error": "192.0.2.7 is not banned"}, status=404)
        self.assertEqual(self.ask("unban", "192.0.2.7"), (1, "", "192.0.2.7 is not banned\n"))
        self.assertEqual(server.asked.pop().body, {"network": "192.0.2.7"})
        # The list has the time left.
        now = 1795203607.25
        set_wall_clock(self, now)
        server.status = 200
        server.document = [
            {"network": "192.0.2.7", "since": 1.0, "until": now + 3599.9, "reason": "a b"},
            {"network": "2001:db8::/32", "since": 1.0, "until": None, "reason": ""},
        ]
        lines = [" ".join(line.split()) for line in self.told(0, self.ask("bans")).splitlines()]
        rows = ["192.0.2.7 59 min 59 s a b", "2001:db8::/32 - -"]
        self.assertEqual(lines, ["network left reason", *rows])
        server.document = []
        self.assertEqual(self.ask("bans"), (0, "there are no bans\n", ""))
