from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="ExecTruncated")


@_attrs_define
class ExecTruncated:
    """Output that was left out.

    Attributes:
        stderr_bytes (int): Bytes of standard error.
        stdout_bytes (int): Bytes of standard output.
    """

    stderr_bytes: int
    stdout_bytes: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        stderr_bytes = self.stderr_bytes

        stdout_bytes = self.stdout_bytes

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "stderr_bytes": stderr_bytes,
                "stdout_bytes": stdout_bytes,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        stderr_bytes = d.pop("stderr_bytes")

        stdout_bytes = d.pop("stdout_bytes")

        exec_truncated = cls(
            stderr_bytes=stderr_bytes,
            stdout_bytes=stdout_bytes,
        )

        exec_truncated.additional_properties = d
        return exec_truncated

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
