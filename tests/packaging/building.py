"""Builds the packages, and runs what is in them far from the checkout."""

import os
import sys
import tarfile
from pathlib import Path

from tests.programs import run_text

CHECKOUT = Path(__file__).parents[2]

_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
OFFLINE = ("--no-index", "--no-deps")
"""Options of pip for what needs nothing but what is given."""


def run_outside(*command: str | Path, cwd: Path, seconds: float = 900) -> str:
    """Run a command far from the checkout, so that only what is installed can be found."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV_CORE", "COVERAGE"))
    }
    done = run_text(*command, cwd=cwd, env=environment, seconds=seconds)
    if done.returncode:
        raise AssertionError(f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def checkout_files() -> set[str]:
    options = ("-z", "--cached", "--others", "--exclude-standard")
    listed = run_text("git", "ls-files", *options, cwd=CHECKOUT, check=True)
    return {name for name in listed.stdout.split("\0") if (CHECKOUT / name).is_file()}


def pip(*arguments: str | Path, cwd: Path) -> None:
    run_outside(*_PIP, *arguments, cwd=cwd)


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree into an empty folder, with the hatchling of the tests."""
    pip("wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(folder: Path) -> Path:
    """Build the source package of the checkout into an empty folder, and return the folder that was in it."""
    build = (sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder)
    run_outside(*build, cwd=CHECKOUT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        # Debian 12's Python does not know the argument of that name yet.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")
