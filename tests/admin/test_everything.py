"""A service with some of everything, as commands show it; the page and `txmux top` have tests of their own, metrics `test_openapi.py`."""

from tests.cli.support import CommandTestCase
from tests.support.everything import DOCUMENTS, names


class CommandsTest(CommandTestCase):
    def test_recorded_documents(self) -> None:
        """What commands show of state names all that their document has."""
        server = self.answering(document={"error": "not this"})
        lists = DOCUMENTS.keys() - {"connection"}
        server.others = {f"/api/{name}*": DOCUMENTS[name] for name in lists}
        self.environ["COLUMNS"] = "1000"
        shown = ""
        for words, named in (
            (("status",), {"web", "site", "public", "names"}),
            (("connections",), {one["client"] for one in DOCUMENTS["connections"]}),
            (("clients",), {one["source"] for one in DOCUMENTS["clients"]}),
            (("servers",), {"web", "127.0.0.1:8080", "127.0.0.1:8081"}),
            (("events",), {"192.0.2.4:50004", "no-route"}),
            (("certificates",), {"www.example.com"}),
            (("bans",), {"192.0.2.7", "scans"}),
        ):
            out = self.told(0, self.ask(*words))
            for name in named:
                self.assertIn(name, out, words)
            shown += out
        self.assertEqual({name for name in names() if name not in shown}, set())
