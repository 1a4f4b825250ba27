from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.log_record import LogRecord


T = TypeVar("T", bound="LogPage")


@_attrs_define
class LogPage:
    """Records of a log.

    Attributes:
        next_seq (int): Pass it as `from_seq` to go on. When the last record has `end`, nothing follows.
        records (list[LogRecord]): In order of `seq`.
    """

    next_seq: int
    records: list[LogRecord]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        next_seq = self.next_seq

        records = []
        for records_item_data in self.records:
            records_item = records_item_data.to_dict()
            records.append(records_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "next_seq": next_seq,
                "records": records,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.log_record import LogRecord

        d = dict(src_dict)
        next_seq = d.pop("next_seq")

        records = []
        _records = d.pop("records")
        for records_item_data in _records:
            records_item = LogRecord.from_dict(records_item_data)

            records.append(records_item)

        log_page = cls(
            next_seq=next_seq,
            records=records,
        )

        log_page.additional_properties = d
        return log_page

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
