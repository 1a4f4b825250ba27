from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.build_status import BuildStatus

T = TypeVar("T", bound="LogEnd")


@_attrs_define
class LogEnd:
    """How a build ended.

    Attributes:
        last_seq (int): `seq` of this record.
        status (BuildStatus): Where a build stands.
    """

    last_seq: int
    status: BuildStatus
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        last_seq = self.last_seq

        status = self.status.value

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "last_seq": last_seq,
                "status": status,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        last_seq = d.pop("last_seq")

        status = BuildStatus(d.pop("status"))

        log_end = cls(
            last_seq=last_seq,
            status=status,
        )

        log_end.additional_properties = d
        return log_end

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
