from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="TagSet")


@_attrs_define
class TagSet:
    """Where a tag is to point. Unknown fields are refused.

    Attributes:
        template_id (str): A template of this name.
    """

    template_id: str

    def to_dict(self) -> dict[str, Any]:
        template_id = self.template_id

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "template_id": template_id,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        template_id = d.pop("template_id")

        tag_set = cls(
            template_id=template_id,
        )

        return tag_set
