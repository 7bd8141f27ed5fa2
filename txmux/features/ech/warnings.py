"""Warnings about the keys of Encrypted ClientHello."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from txmux.detection.explain import explain
from txmux.features.ech.keys import KeyFile, read_key_files
from txmux.net.tls.client_hello import client_hello
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import Listener, Refusal, Rules
from txmux.rules.problems import Problem


def ech_warnings(rules: Rules) -> Iterator[Problem]:
    """Find public names that no route takes, and keys that open nothing."""
    for listener in rules.listeners:
        if "ech_keys" in listener.more:
            with suppress(TLSFileError):  # of a file that only this process may not read
                keys = read_key_files(listener.more["ech_keys"])
                yield from _unrouted_names(rules, listener, keys)
                yield from _covered_keys(listener, keys)


def _unrouted_names(
    rules: Rules, listener: Listener, files: Iterable[KeyFile]
) -> Iterator[Problem]:
    """Find public names that no route takes."""
    routes = rules.routes_over(listener, listener.transport)
    names = dict.fromkeys(key.config.public_name for file in files for key in file.keys)
    for name in names if isinstance(listener.default, Refusal) else ():
        if explain(routes, client_hello(name), now=time.time()).decision.route is None:
            message = f"no route takes the public name {name!r}, to which clients come whose hello does not open; add one with 'match = tls sni={name}'"
            yield listener.section.problem(message, "ech_keys")


def _covered_keys(listener: Listener, files: Iterable[KeyFile]) -> Iterator[Problem]:
    """Find keys that open nothing, since a newer one has their number, by which a hello finds its key."""
    newest: dict[int, KeyFile] = {}
    for file in files:
        for number in {key.config.id for key in file.keys}:
            other = newest.setdefault(number, file)
            if other is not file:
                message = f"'{file.path}' opens nothing, since the newer '{other.path}' has the same number, {number}; make a key with another one by 'txmux ech new'"
                yield listener.section.problem(message, "ech_keys")
