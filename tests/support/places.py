from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]


def country(code: str) -> dict[str, Any]:
    return {"country": {"iso_code": code}, "continent": {"code": "EU"}}


def system(number: int) -> dict[str, Any]:
    return {"autonomous_system_number": number, "autonomous_system_organization": "Example"}


def write_places(path: Path, records: Mapping[str, dict[str, Any]]) -> None:
    writer = MMDBWriter(4, "Test", int_type="uint32")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    new.rename(path)
