from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BuildCancel")


@_attrs_define
class BuildCancel:
    """Why a build is cancelled.

    Attributes:
        why (str | Unset): One line for people, in the build and in its log.
    """

    why: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        why = self.why

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if why is not UNSET:
            field_dict["why"] = why

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        why = d.pop("why", UNSET)

        build_cancel = cls(
            why=why,
        )

        return build_cancel
