"""What Consul says is told in lines of ours."""

import json
from collections.abc import Iterator

from tests.features.consul.stand_in import Instance, instances_in
from tests.test_errors import NamedCase, refused
from txmux.features.consul.finding import _refusal, next_index
from txmux.net.http import HttpResponse


class NamedTests(NamedCase):
    def test_all(self) -> None:
        self.assert_harmless("Consul", _told)


def _told(text: str) -> Iterator[str]:
    instance = Instance(5, address=text).told("web")
    for one in (instance, Instance(5, address=f"fe80::1%{text}").told("web")):
        found = instances_in(json.dumps([one]).encode(), passing=False)
        yield from (*found.named, *(address.host for address in found.addresses))
    yield _refusal(HttpResponse(500, {}, text.encode()))
    for name in ("Port", "Weights"):
        told = json.dumps([{**instance, "Service": {**instance["Service"], name: text}}])
        yield from refused(instances_in, told.encode(), passing=False)
    yield from refused(instances_in, json.dumps(text).encode(), passing=False)
    yield from refused(next_index, 0, text)
