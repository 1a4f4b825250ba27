from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="HostCapacity")


@_attrs_define
class HostCapacity:
    """What a host may promise to sandboxes.

    Attributes:
        disk_free_bytes (int): Free disk, in bytes.
        max_sandbox_memory_mb (int): Memory of one sandbox at most, in MiB.
        max_sandbox_vcpus (int): Virtual CPUs of one sandbox at most.
        memory_mb (int): Memory of all sandboxes together, in MiB.
        vcpus (int): Virtual CPUs of all sandboxes together.
    """

    disk_free_bytes: int
    max_sandbox_memory_mb: int
    max_sandbox_vcpus: int
    memory_mb: int
    vcpus: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        disk_free_bytes = self.disk_free_bytes

        max_sandbox_memory_mb = self.max_sandbox_memory_mb

        max_sandbox_vcpus = self.max_sandbox_vcpus

        memory_mb = self.memory_mb

        vcpus = self.vcpus

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "disk_free_bytes": disk_free_bytes,
                "max_sandbox_memory_mb": max_sandbox_memory_mb,
                "max_sandbox_vcpus": max_sandbox_vcpus,
                "memory_mb": memory_mb,
                "vcpus": vcpus,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        disk_free_bytes = d.pop("disk_free_bytes")

        max_sandbox_memory_mb = d.pop("max_sandbox_memory_mb")

        max_sandbox_vcpus = d.pop("max_sandbox_vcpus")

        memory_mb = d.pop("memory_mb")

        vcpus = d.pop("vcpus")

        host_capacity = cls(
            disk_free_bytes=disk_free_bytes,
            max_sandbox_memory_mb=max_sandbox_memory_mb,
            max_sandbox_vcpus=max_sandbox_vcpus,
            memory_mb=memory_mb,
            vcpus=vcpus,
        )

        host_capacity.additional_properties = d
        return host_capacity

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
