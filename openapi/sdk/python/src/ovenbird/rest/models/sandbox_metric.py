from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="SandboxMetric")


@_attrs_define
class SandboxMetric:
    """What a sandbox used at a time.

    Attributes:
        at (datetime.datetime): When.
        cpu_pct (float): Of one processor, in percent: 100 is one virtual CPU that is busy all the time.
        disk_bytes (int): What its disk takes on the host, in bytes.
        mem_bytes (int): The host's memory that it takes, in bytes.
    """

    at: datetime.datetime
    cpu_pct: float
    disk_bytes: int
    mem_bytes: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        at = self.at.isoformat()

        cpu_pct = self.cpu_pct

        disk_bytes = self.disk_bytes

        mem_bytes = self.mem_bytes

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "at": at,
                "cpu_pct": cpu_pct,
                "disk_bytes": disk_bytes,
                "mem_bytes": mem_bytes,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        at = datetime.datetime.fromisoformat(d.pop("at"))

        cpu_pct = d.pop("cpu_pct")

        disk_bytes = d.pop("disk_bytes")

        mem_bytes = d.pop("mem_bytes")

        sandbox_metric = cls(
            at=at,
            cpu_pct=cpu_pct,
            disk_bytes=disk_bytes,
            mem_bytes=mem_bytes,
        )

        sandbox_metric.additional_properties = d
        return sandbox_metric

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
