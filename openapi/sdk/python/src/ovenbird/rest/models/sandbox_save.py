from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="SandboxSave")


@_attrs_define
class SandboxSave:
    """What a sandbox becomes.

    Attributes:
        name (str): Name of the template to be.
        tag (str | Unset): Tag of the template to be; it moves here once the template is there. Default: 'latest'.
    """

    name: str
    tag: str | Unset = "latest"

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        tag = self.tag

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
            }
        )
        if tag is not UNSET:
            field_dict["tag"] = tag

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        name = d.pop("name")

        tag = d.pop("tag", UNSET)

        sandbox_save = cls(
            name=name,
            tag=tag,
        )

        return sandbox_save
