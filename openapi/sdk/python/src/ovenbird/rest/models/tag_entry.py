from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="TagEntry")


@_attrs_define
class TagEntry:
    """Where a tag points, or pointed for a while.

    Attributes:
        name (str): The name whose tag it is.
        set_at (datetime.datetime): Since when.
        set_by (str): Who set it: the id of an API key, or `host` for a template that came with a host.
        tag (str): The tag.
        template_id (str): The template that it points to, or pointed to; that one may be deleted by now.
        superseded_at (datetime.datetime | Unset): Until when; absent where it points now.
        superseded_by (str | Unset): Who moved it on or took it away.
    """

    name: str
    set_at: datetime.datetime
    set_by: str
    tag: str
    template_id: str
    superseded_at: datetime.datetime | Unset = UNSET
    superseded_by: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        set_at = self.set_at.isoformat()

        set_by = self.set_by

        tag = self.tag

        template_id = self.template_id

        superseded_at: str | Unset = UNSET
        if not isinstance(self.superseded_at, Unset):
            superseded_at = self.superseded_at.isoformat()

        superseded_by = self.superseded_by

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "name": name,
                "set_at": set_at,
                "set_by": set_by,
                "tag": tag,
                "template_id": template_id,
            }
        )
        if superseded_at is not UNSET:
            field_dict["superseded_at"] = superseded_at
        if superseded_by is not UNSET:
            field_dict["superseded_by"] = superseded_by

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        name = d.pop("name")

        set_at = datetime.datetime.fromisoformat(d.pop("set_at"))

        set_by = d.pop("set_by")

        tag = d.pop("tag")

        template_id = d.pop("template_id")

        _superseded_at = d.pop("superseded_at", UNSET)
        superseded_at: datetime.datetime | Unset
        if isinstance(_superseded_at, Unset):
            superseded_at = UNSET
        else:
            superseded_at = datetime.datetime.fromisoformat(_superseded_at)

        superseded_by = d.pop("superseded_by", UNSET)

        tag_entry = cls(
            name=name,
            set_at=set_at,
            set_by=set_by,
            tag=tag,
            template_id=template_id,
            superseded_at=superseded_at,
            superseded_by=superseded_by,
        )

        tag_entry.additional_properties = d
        return tag_entry

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
