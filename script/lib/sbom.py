"""Lists what a release is made of and needs, as CycloneDX has it. `script/release` runs it."""

from __future__ import annotations

import argparse
import hashlib
import json
import uuid
import zipfile
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMESPACE = uuid.UUID("a0c1f6c4-6e0f-5a52-8a63-6f3c1b1d7f6e")


def _wanted(lines: Iterable[str], extras: Iterable[str] = ()) -> list[Requirement]:
    """Read what is required here, and by these extras."""
    found = map(Requirement, lines)
    chosen = [{"extra": extra} for extra in ("", *extras)]
    return [
        one
        for one in found
        if one.marker is None or any(one.marker.evaluate(extra) for extra in chosen)
    ]


def _reference(name: str, version: str) -> str:
    return f"pkg:pypi/{canonicalize_name(name)}@{version}"


def _license(metadata: Any) -> list[dict[str, Any]]:
    expression = metadata["License-Expression"]
    return [{"expression": expression}] if expression else []


def _component(metadata: Any) -> dict[str, Any]:
    name, version = metadata["Name"], metadata["Version"]
    reference = _reference(name, version)
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
    }
    if licenses := _license(metadata):
        made["licenses"] = licenses
    if metadata["Summary"]:
        made["description"] = metadata["Summary"]
    return made


def bill(wheel: Path) -> dict[str, Any]:
    """List the components of a release (CycloneDX 1.6, JSON).

    Args:
        wheel: The package. Its dependencies are those without which it does not run, in the versions of this environment.

    Raises:
        SystemExit: One of them is not installed here.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        ours = message_from_bytes(archive.read(name))
    root = _component(ours)
    root["type"] = "application"
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    components: dict[str, dict[str, Any]] = {}
    leads_to: dict[str, set[str]] = {root["bom-ref"]: set()}
    ahead = [(root["bom-ref"], one) for one in _wanted(ours.get_all("Requires-Dist") or ())]
    seen = set()
    while ahead:
        by, requirement = ahead.pop()
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"sbom: {requirement.name} is not installed") from None
        component = _component(found.metadata)
        reference = component["bom-ref"]
        components[reference] = component
        leads_to.setdefault(reference, set())
        leads_to[by].add(reference)
        if (reference, frozenset(requirement.extras)) not in seen:
            seen.add((reference, frozenset(requirement.extras)))
            ahead += [(reference, one) for one in _wanted(found.requires or (), requirement.extras)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same release has the same one.
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, root['hashes'][0]['content'])}",
        "version": 1,
        "metadata": {"component": root},
        "components": [components[one] for one in sorted(components)],
        "dependencies": [
            {"ref": one, "dependsOn": sorted(others)} for one, others in sorted(leads_to.items())
        ],
    }


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("file", type=Path, help="what is written")
    arguments = parser.parse_args()
    arguments.file.write_text(json.dumps(bill(arguments.wheel), indent=1) + "\n")


if __name__ == "__main__":
    main()
