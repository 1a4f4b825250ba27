from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="Problem")


@_attrs_define
class Problem:
    """One thing that is wrong with the request.

    Attributes:
        code (str): A stable word.
        field (str): Where: a field of the body as a path (`name`, `recipe[2].timeout`) or a parameter's name.
        message (str): What is wrong.
        column (int | Unset): The column in that line, in characters from 1.
        hint (str | Unset): What to do about it.
        line (int | Unset): The line, from 1, in a recipe or a healthcheck. In a list of steps each element counts its
            own lines.
    """

    code: str
    field: str
    message: str
    column: int | Unset = UNSET
    hint: str | Unset = UNSET
    line: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        code = self.code

        field = self.field

        message = self.message

        column = self.column

        hint = self.hint

        line = self.line

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "code": code,
                "field": field,
                "message": message,
            }
        )
        if column is not UNSET:
            field_dict["column"] = column
        if hint is not UNSET:
            field_dict["hint"] = hint
        if line is not UNSET:
            field_dict["line"] = line

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        code = d.pop("code")

        field = d.pop("field")

        message = d.pop("message")

        column = d.pop("column", UNSET)

        hint = d.pop("hint", UNSET)

        line = d.pop("line", UNSET)

        problem = cls(
            code=code,
            field=field,
            message=message,
            column=column,
            hint=hint,
            line=line,
        )

        problem.additional_properties = d
        return problem

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
