from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="BuildReason")


@_attrs_define
class BuildReason:
    """Why a build failed or went back to the queue.

    Attributes:
        code (str): A stable word, such as `step_failed`.
        message (str): What happened and what to do.
        step (int | Unset): The step, as you numbered it.
        tail (str | Unset): The end of the step's output, or of the sandbox's console.
    """

    code: str
    message: str
    step: int | Unset = UNSET
    tail: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        code = self.code

        message = self.message

        step = self.step

        tail = self.tail

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "code": code,
                "message": message,
            }
        )
        if step is not UNSET:
            field_dict["step"] = step
        if tail is not UNSET:
            field_dict["tail"] = tail

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        code = d.pop("code")

        message = d.pop("message")

        step = d.pop("step", UNSET)

        tail = d.pop("tail", UNSET)

        build_reason = cls(
            code=code,
            message=message,
            step=step,
            tail=tail,
        )

        build_reason.additional_properties = d
        return build_reason

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
