from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="SandboxCreate")


@_attrs_define
class SandboxCreate:
    """A sandbox to be. Unknown fields are refused.

    Attributes:
        template (str): The template to start from: `name`, `name:tag`, or a template's id.
        disk_mb (int | Unset): Size of the root disk, in MiB, which the template must fit into; the template's when
            absent.
        memory_mb (int | Unset): Memory, in MiB; the template's when absent. That of a snapshot cannot be changed.
        timeout_sec (int | Unset): Idle seconds until it is paused by itself; 0 means never. Default: 0.
        vcpus (int | Unset): Virtual CPUs; the template's when absent. Those of a snapshot cannot be changed.
    """

    template: str
    disk_mb: int | Unset = UNSET
    memory_mb: int | Unset = UNSET
    timeout_sec: int | Unset = 0
    vcpus: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        template = self.template

        disk_mb = self.disk_mb

        memory_mb = self.memory_mb

        timeout_sec = self.timeout_sec

        vcpus = self.vcpus

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "template": template,
            }
        )
        if disk_mb is not UNSET:
            field_dict["disk_mb"] = disk_mb
        if memory_mb is not UNSET:
            field_dict["memory_mb"] = memory_mb
        if timeout_sec is not UNSET:
            field_dict["timeout_sec"] = timeout_sec
        if vcpus is not UNSET:
            field_dict["vcpus"] = vcpus

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        template = d.pop("template")

        disk_mb = d.pop("disk_mb", UNSET)

        memory_mb = d.pop("memory_mb", UNSET)

        timeout_sec = d.pop("timeout_sec", UNSET)

        vcpus = d.pop("vcpus", UNSET)

        sandbox_create = cls(
            template=template,
            disk_mb=disk_mb,
            memory_mb=memory_mb,
            timeout_sec=timeout_sec,
            vcpus=vcpus,
        )

        return sandbox_create
