import json
from typing import Any

from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.kit import change_constants, listen, make_folder, reactor
from txmux.features.gateway import api
from txmux.features.gateway.api import Access, KubeApi, NoServerError


class _Pages(Resource):
    """Answers with pages of so many objects; the last one is the rest."""

    isLeaf = True

    def __init__(self, objects: int) -> None:
        super().__init__()
        self._objects = objects

    def render_GET(self, asked: Any) -> bytes:
        begin, size = (int(asked.args.get(name, [b"0"])[0]) for name in (b"continue", b"limit"))
        end = min(begin + size, self._objects)
        more = {"continue": str(end)} if end < self._objects else {}
        page = {"items": [*range(begin, end)], "metadata": {"resourceVersion": "7", **more}}
        return json.dumps(page).encode()


class ListTest(TestCase):
    async def test_most_objects(self) -> None:
        """So many are read, whatever their pages; one more is refused, since each is kept."""
        change_constants(self, api, _MOST_OBJECTS=5, _PAGE=2)
        for objects in (4, 5):
            self.assertEqual(await self.listed(objects), ([*range(objects)], "7"))
        with self.assertRaises(NoServerError) as caught:
            await self.listed(6)
        self.assertIn("there are more than 5 at /api/v1/x", str(caught.exception))

    async def listed(self, objects: int) -> tuple[list[Any], str]:
        port = listen(self, Site(_Pages(objects)))
        return await KubeApi(reactor, Access(f"http://127.0.0.1:{port}")).list("/api/v1/x")

    async def test_a_token_that_cannot_be_read(self) -> None:
        """It may be right again at the next request, as it is written anew every hour."""
        file = make_folder(self) / "token"
        access = Access("http://127.0.0.1:1", token=file.read_text)
        for content, why in ((None, "No such file"), (b"\xff", "invalid start byte")):
            if content is not None:
                file.write_bytes(content)
            with self.assertRaises(NoServerError) as caught:
                await KubeApi(reactor, access).get("/api/v1/x")
            self.assertRegex(str(caught.exception), f"the token cannot be read: .*{why}")
