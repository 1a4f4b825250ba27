from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="SandboxResume")


@_attrs_define
class SandboxResume:
    """How a sandbox goes on.

    Attributes:
        timeout_sec (int | Unset): Idle seconds until it is paused by itself, from now on; 0 means never. As before when
            absent.
    """

    timeout_sec: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        timeout_sec = self.timeout_sec

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if timeout_sec is not UNSET:
            field_dict["timeout_sec"] = timeout_sec

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        timeout_sec = d.pop("timeout_sec", UNSET)

        sandbox_resume = cls(
            timeout_sec=timeout_sec,
        )

        return sandbox_resume
