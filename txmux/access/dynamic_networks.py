"""The networks of the rules of one process that change while the rules hold."""

from __future__ import annotations

import base64
import sys
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from txmux.rules.feature import NetworkReader
from txmux.rules.installed import READ_BY_EACH
from txmux.rules.model import Backend, Listener, NetworkSet, Route, Rules
from txmux.rules.model.networks import EVERY_CLIENT, DynamicNetworks

Packed: TypeAlias = "dict[str, dict[str, str]]"
"""By version and the number of bits that may be any: numbers of 32 or 128 bits, the highest byte first, in base64."""

_IPV6 = 16  # bytes


def dynamic_networks_of(rules: Rules) -> list[DynamicNetworks]:
    return dynamic_networks_in(rules.routes, rules.listeners, rules.every_backend())


def dynamic_networks_in(
    routes: Iterable[Route], listeners: Sequence[Listener], backends: Iterable[Backend]
) -> list[DynamicNetworks]:
    sets = [listener.accept_proxy_from for listener in listeners]
    for backend in backends:
        sets += [backend.allow_networks, backend.deny_networks]
    clients = [route.clients for route in routes if route.clients is not EVERY_CLIENT]
    for listener in listeners:
        clients += [listener.clients, *(line.clients for line in listener.silent)]
    for group in clients:
        sets += [group.allowed, group.excluded]
    return [dynamic for networks in sets if networks is not None for dynamic in networks.dynamic]


class Lists:
    """Replaces the contents of dynamic networks, also in older rules that are still in use.

    Attributes:
        on_change: Called when contents have changed.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None
        self.contents: dict[str, Any] = {}  # what `feed` was given, by names
        self._tracked: dict[str, list[weakref.ref[DynamicNetworks]]] = {}
        self._readers: dict[str, NetworkReader] = {}

    @property
    def trouble(self) -> str:
        return next((one.trouble for one in self._readers.values() if one.trouble), "")

    def prepare(
        self, rules: Rules, new: Iterable[DynamicNetworks] | None = None, *, may_lack: bool = False
    ) -> None:
        """Feed the networks of these rules too; those of a file stay as they were read until `feed` replaces them.

        What this process reads for itself and cannot is a `RulesError`, unless it `may_lack`. If some are `new`, the others are
        tracked already.
        """
        new = dynamic_networks_of(rules) if new is None else new
        by_id = {id(dynamic): dynamic for dynamic in new}
        for kind in dict.fromkeys(dynamic.kind for dynamic in by_id.values()):
            if kind in READ_BY_EACH and kind not in self._readers:
                self._readers[kind] = READ_BY_EACH[kind]()
        for reader in self._readers.values():
            reader.prepare(rules.settings, may_lack=may_lack)
        contents: dict[str, NetworkSet] = {}
        for dynamic in by_id.values():
            if dynamic.kind in self._readers:
                self._readers[dynamic.kind].serve(dynamic)
            elif dynamic.kind == "file":
                self.contents.pop(dynamic.name, None)
            elif dynamic.name in self.contents:
                if dynamic.name not in contents:
                    contents[dynamic.name] = unpack(self.contents[dynamic.name])
                dynamic.contents = contents[dynamic.name]
            tracked = self._tracked.setdefault(dynamic.name, [])
            tracked[:] = [ref for ref in tracked if ref() is not None and ref() is not dynamic]
            tracked.append(weakref.ref(dynamic))

    def feed(self, published: Mapping[str, Any]) -> None:
        """Replace contents by name, as `pack` returns them."""
        changed = {
            name: value
            for name, value in published.items()
            if self.contents.get(name) != value
            or (name in self._readers and self._readers[name].trouble)
        }
        self.contents.update(changed)
        for name, value in changed.items():
            if name in READ_BY_EACH:
                if name in self._readers:
                    reading = Deferred.fromCoroutine(self._readers[name].read_again())
                    reading.addCallback(lambda _: self.on_change())
                continue
            contents = unpack(value)
            for ref in self._tracked.get(name, ()):
                dynamic = ref()
                if dynamic is not None:
                    dynamic.contents = contents
        if changed:
            self.on_change()


def pack(networks: NetworkSet) -> Packed:
    """Return the networks of a set without dynamic parts, by version and free bits."""
    return {
        str(version): {
            str(shift): base64.b64encode(_bytes(version, prefixes)).decode()
            for shift, prefixes in by_shift.items()
        }
        for version, by_shift in networks.prefixes().items()
    }


def unpack(packed: Packed) -> NetworkSet:
    return NetworkSet.of_prefixes(
        {
            int(version): {
                int(shift): _numbers(int(version), base64.b64decode(text))
                for shift, text in by_shift.items()
            }
            for version, by_shift in packed.items()
        }
    )


def _bytes(version: int, numbers: Iterable[int]) -> bytes:
    if version == 4:
        return _swapped(array("I", numbers)).tobytes()
    return b"".join(number.to_bytes(_IPV6, "big") for number in numbers)


def _numbers(version: int, data: bytes) -> Iterable[int]:
    if version == 4:
        numbers = array("I")
        numbers.frombytes(data)
        return _swapped(numbers)
    return [int.from_bytes(data[at : at + _IPV6], "big") for at in range(0, len(data), _IPV6)]


def _swapped(numbers: array[int]) -> array[int]:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
