from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.step_phase import StepPhase
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.step_truncated import StepTruncated


T = TypeVar("T", bound="StepEntry")


@_attrs_define
class StepEntry:
    """What one step did.

    Attributes:
        cached (bool): Taken from an earlier build instead of run.
        cmd (str): The step as you wrote it, or what is done, in words.
        elapsed_ms (int): How long it took, in milliseconds.
        ok (bool): Whether it did what was asked.
        phase (StepPhase): The part of a build that a step belongs to.
        stderr (str): Head and tail of its standard error.
        stdout (str): Head and tail of its standard output.
        step (int): The step, as you numbered it; 0 outside of the recipe.
        exit_ (int | Unset): Its exit code, where a command ended.
        log_truncated (StepTruncated | Unset): Output that is left out.
        truncated (StepTruncated | Unset): Output that is left out.
    """

    cached: bool
    cmd: str
    elapsed_ms: int
    ok: bool
    phase: StepPhase
    stderr: str
    stdout: str
    step: int
    exit_: int | Unset = UNSET
    log_truncated: StepTruncated | Unset = UNSET
    truncated: StepTruncated | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        cached = self.cached

        cmd = self.cmd

        elapsed_ms = self.elapsed_ms

        ok = self.ok

        phase = self.phase.value

        stderr = self.stderr

        stdout = self.stdout

        step = self.step

        exit_ = self.exit_

        log_truncated: dict[str, Any] | Unset = UNSET
        if not isinstance(self.log_truncated, Unset):
            log_truncated = self.log_truncated.to_dict()

        truncated: dict[str, Any] | Unset = UNSET
        if not isinstance(self.truncated, Unset):
            truncated = self.truncated.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "cached": cached,
                "cmd": cmd,
                "elapsed_ms": elapsed_ms,
                "ok": ok,
                "phase": phase,
                "stderr": stderr,
                "stdout": stdout,
                "step": step,
            }
        )
        if exit_ is not UNSET:
            field_dict["exit"] = exit_
        if log_truncated is not UNSET:
            field_dict["log_truncated"] = log_truncated
        if truncated is not UNSET:
            field_dict["truncated"] = truncated

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.step_truncated import StepTruncated

        d = dict(src_dict)
        cached = d.pop("cached")

        cmd = d.pop("cmd")

        elapsed_ms = d.pop("elapsed_ms")

        ok = d.pop("ok")

        phase = StepPhase(d.pop("phase"))

        stderr = d.pop("stderr")

        stdout = d.pop("stdout")

        step = d.pop("step")

        exit_ = d.pop("exit", UNSET)

        _log_truncated = d.pop("log_truncated", UNSET)
        log_truncated: StepTruncated | Unset
        if isinstance(_log_truncated, Unset):
            log_truncated = UNSET
        else:
            log_truncated = StepTruncated.from_dict(_log_truncated)

        _truncated = d.pop("truncated", UNSET)
        truncated: StepTruncated | Unset
        if isinstance(_truncated, Unset):
            truncated = UNSET
        else:
            truncated = StepTruncated.from_dict(_truncated)

        step_entry = cls(
            cached=cached,
            cmd=cmd,
            elapsed_ms=elapsed_ms,
            ok=ok,
            phase=phase,
            stderr=stderr,
            stdout=stdout,
            step=step,
            exit_=exit_,
            log_truncated=log_truncated,
            truncated=truncated,
        )

        step_entry.additional_properties = d
        return step_entry

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
