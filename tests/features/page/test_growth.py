"""How the steps of the page grow with the rules."""

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.test_growth import view_of
from tests.support.growth import AT_ALL, growth
from txmux.control.control import Control
from txmux.features.page.gather import gather
from txmux.features.page.query import PageQuery
from txmux.features.page.view import View, render


async def _page(control: Control) -> object:
    query = PageQuery.of({})
    return [*render(View(await gather(control, query), query))]


class GrowthTests(SynchronousTestCase):
    def test_page(self) -> None:
        for what in ("routes", "servers"):
            self.assertLessEqual(growth(partial(view_of, _page, what)), AT_ALL, what)
