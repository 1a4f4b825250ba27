from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="HostAllocated")


@_attrs_define
class HostAllocated:
    """What a host's agent has promised.

    Attributes:
        memory_mb (int): Memory, in MiB.
        sandboxes (int): Sandboxes, those of builds too.
        vcpus (int): Virtual CPUs.
    """

    memory_mb: int
    sandboxes: int
    vcpus: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        memory_mb = self.memory_mb

        sandboxes = self.sandboxes

        vcpus = self.vcpus

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "memory_mb": memory_mb,
                "sandboxes": sandboxes,
                "vcpus": vcpus,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        memory_mb = d.pop("memory_mb")

        sandboxes = d.pop("sandboxes")

        vcpus = d.pop("vcpus")

        host_allocated = cls(
            memory_mb=memory_mb,
            sandboxes=sandboxes,
            vcpus=vcpus,
        )

        host_allocated.additional_properties = d
        return host_allocated

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
