"""What Consul says reaches all workers."""

from tests.features.consul.stand_in import Consul, Instance
from tests.processes.test_names import HOSTS, NamesCase


class WorkersTest(NamesCase):
    async def test_consul(self) -> None:
        """A service of Consul has one blocking query, whose answer reaches all workers."""
        consul = Consul(self, self.time)
        consul.register("web", [Instance(self.server, HOSTS[0])])
        await self.begin("consul:web", settings=f"consul = {consul.url}\n")
        await self.known(f"{HOSTS[0]}:{self.server}")
        await self.all_lead_to(self.first)
        self.time.advance(1)
        await self.until(lambda: consul.waiting)
        consul.register("web", [Instance(self.server, HOSTS[1], weights=(7, 1))])
        await self.known(f"{HOSTS[1]}:{self.server}")
        await self.all_lead_to(self.second)
        self.assertEqual(len(consul.asked), 2)
