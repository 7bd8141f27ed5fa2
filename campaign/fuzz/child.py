"""One target in a process of its own, led by coverage: ``python -m campaign.fuzz.child TARGET FOLDER [options of libFuzzer]``.

The folder is for what libFuzzer needs beside its inputs. It needs atheris.
"""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.logger import LogPublisher, globalLogBeginner

from campaign.fuzz import target as targets

_ALSO = {
    "convert_nginx": ("crossplane",),
    "convert_sslh": ("libconf",),
    "dns_answer": ("twisted.names",),
    "matchers_tcp": ("hpack",),
}
"""Packages beside txmux in which coverage counts."""


def main() -> None:
    atheris: Any = import_module("atheris")
    _, name, folder, *options = sys.argv
    # Nothing is logged: a message that fails is not a defect.
    globalLogBeginner.beginLoggingTo([LogPublisher()], redirectStandardIO=False)
    with atheris.instrument_imports(include=["txmux", "txmux_convert", *_ALSO.get(name, ())]):
        target = targets.load(name)
        for seed in target.seeds():  # they import what is imported late
            target.check(seed)
    words = Path(folder, "words.dict")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))
    # To merge, libFuzzer starts itself again.
    again = Path(folder, "again")
    command = [sys.executable, "-m", "campaign.fuzz.child", name, folder]
    again.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    again.chmod(0o700)

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException:
            # libFuzzer would, but may be ended first by its own alarm.
            Path(folder, "broken-input").write_bytes(data)
            raise

    atheris.Setup([str(again), f"-max_len={target.longest}", f"-dict={words}", *options], check)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
