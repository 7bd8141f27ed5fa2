"""Commands that other packages bring: each is a module that an entry point of the group ``txmux.commands`` names.

`docs/reference/commands.md`, *Commands of other packages*, says what such a module has.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from txmux.errors import MuxError, how_to_reinstall

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_NAME = re.compile(r"[a-z][a-z0-9-]*")


def commands_of_others() -> dict[str, list[EntryPoint]]:
    """Return what brings each command: this distribution, or else others. A name that shells would not complete is none."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - most commands are found without it

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="txmux.commands"):
        if _NAME.fullmatch(point.name):
            found.setdefault(point.name, []).append(point)
    own = {name: [one for one in points if _is_own(one)] for name, points in found.items()}
    return {name: own[name] or points for name, points in found.items()}


def load(points: list[EntryPoint]) -> Any:
    """Import a command, and try whether it can be used.

    Raises:
        MuxError: It cannot, or several packages bring it. The message names the package.
    """
    name = f"the command {points[0].name!r}"
    if len(points) > 1:
        raise MuxError(f"{name} comes from {' and '.join(map(_package, points))}; uninstall one")
    (point,) = points
    try:
        command = point.load()
        trial = argparse.ArgumentParser(description=command.SUMMARY)
        command.configure(trial)
        trial.format_help()
        command.run  # noqa: B018 - it is there
    except (Exception, SystemExit) as error:
        module = point.module.partition(".")[0]
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacking and lacking.partition(".")[0] == module:
            raise missing(point.name, module, _package(point)) from None
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise MuxError(
            f"{name} of {_package(point)} cannot be loaded: {what}; update that package, or uninstall it"
        ) from error
    return command


def missing(name: str, module: str, package: str) -> MuxError:
    """Return the error of a command whose code has been left out of an installation."""
    return MuxError(
        f"the command {name!r} needs {module}, a part of {package} that is not installed; "
        f"install that again: {how_to_reinstall(package.partition(' ')[0])}"
    )


def _is_own(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "txmux"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
