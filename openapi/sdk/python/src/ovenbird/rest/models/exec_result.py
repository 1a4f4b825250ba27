from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.exec_truncated import ExecTruncated


T = TypeVar("T", bound="ExecResult")


@_attrs_define
class ExecResult:
    """How a command ended.

    Attributes:
        elapsed_ms (int): From the request to its end, in milliseconds.
        stderr (str): The beginning of its standard error, likewise.
        stdout (str): The beginning of its standard output, 1 MiB by default. What is not UTF-8 is replaced.
        timed_out (bool): It was killed with its children because its time was over.
        error (str | Unset): Why it could not be started, or which limit of the sandbox it ran into.
        exit_code (int | Unset): Its exit code; 128 and the signal's number when a signal ended it. Absent when its time
            was over.
        stderr_data (str | Unset): The raw bytes of `stderr` in base64, where they are not UTF-8.
        stdout_data (str | Unset): The raw bytes of `stdout` in base64, where they are not UTF-8.
        truncated (ExecTruncated | Unset): Output that was left out.
    """

    elapsed_ms: int
    stderr: str
    stdout: str
    timed_out: bool
    error: str | Unset = UNSET
    exit_code: int | Unset = UNSET
    stderr_data: str | Unset = UNSET
    stdout_data: str | Unset = UNSET
    truncated: ExecTruncated | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        elapsed_ms = self.elapsed_ms

        stderr = self.stderr

        stdout = self.stdout

        timed_out = self.timed_out

        error = self.error

        exit_code = self.exit_code

        stderr_data = self.stderr_data

        stdout_data = self.stdout_data

        truncated: dict[str, Any] | Unset = UNSET
        if not isinstance(self.truncated, Unset):
            truncated = self.truncated.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "elapsed_ms": elapsed_ms,
                "stderr": stderr,
                "stdout": stdout,
                "timed_out": timed_out,
            }
        )
        if error is not UNSET:
            field_dict["error"] = error
        if exit_code is not UNSET:
            field_dict["exit_code"] = exit_code
        if stderr_data is not UNSET:
            field_dict["stderr_data"] = stderr_data
        if stdout_data is not UNSET:
            field_dict["stdout_data"] = stdout_data
        if truncated is not UNSET:
            field_dict["truncated"] = truncated

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.exec_truncated import ExecTruncated

        d = dict(src_dict)
        elapsed_ms = d.pop("elapsed_ms")

        stderr = d.pop("stderr")

        stdout = d.pop("stdout")

        timed_out = d.pop("timed_out")

        error = d.pop("error", UNSET)

        exit_code = d.pop("exit_code", UNSET)

        stderr_data = d.pop("stderr_data", UNSET)

        stdout_data = d.pop("stdout_data", UNSET)

        _truncated = d.pop("truncated", UNSET)
        truncated: ExecTruncated | Unset
        if isinstance(_truncated, Unset):
            truncated = UNSET
        else:
            truncated = ExecTruncated.from_dict(_truncated)

        exec_result = cls(
            elapsed_ms=elapsed_ms,
            stderr=stderr,
            stdout=stdout,
            timed_out=timed_out,
            error=error,
            exit_code=exit_code,
            stderr_data=stderr_data,
            stdout_data=stdout_data,
            truncated=truncated,
        )

        exec_result.additional_properties = d
        return exec_result

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
