from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="HostVersions")


@_attrs_define
class HostVersions:
    """What runs on a host. Empty texts until it has answered once.

    Attributes:
        accelerator (str): `kvm`, or `tcg` where there is no KVM.
        accelerator_reason (str): Why that one.
        agent (str): Version of the agent.
        kernel (str): Digest of the guest kernel.
        qemu (str): Version of QEMU.
        storage (str): How root disks are made: `reflink`, `dm_snapshot` or `copy`.
    """

    accelerator: str
    accelerator_reason: str
    agent: str
    kernel: str
    qemu: str
    storage: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        accelerator = self.accelerator

        accelerator_reason = self.accelerator_reason

        agent = self.agent

        kernel = self.kernel

        qemu = self.qemu

        storage = self.storage

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "accelerator": accelerator,
                "accelerator_reason": accelerator_reason,
                "agent": agent,
                "kernel": kernel,
                "qemu": qemu,
                "storage": storage,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        accelerator = d.pop("accelerator")

        accelerator_reason = d.pop("accelerator_reason")

        agent = d.pop("agent")

        kernel = d.pop("kernel")

        qemu = d.pop("qemu")

        storage = d.pop("storage")

        host_versions = cls(
            accelerator=accelerator,
            accelerator_reason=accelerator_reason,
            agent=agent,
            kernel=kernel,
            qemu=qemu,
            storage=storage,
        )

        host_versions.additional_properties = d
        return host_versions

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
