from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.sandbox_status import SandboxStatus
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.sandbox_reason import SandboxReason
    from ..models.sandbox_snapshot import SandboxSnapshot


T = TypeVar("T", bound="Sandbox")


@_attrs_define
class Sandbox:
    """A microVM that somebody started from a template.

    Attributes:
        created_at (datetime.datetime): When it was asked for.
        host_id (str): The host that it is on.
        id (str): Its id.
        last_active_at (datetime.datetime): When it was last used, as far as its host has told.
        memory_mb (int): Memory, in MiB.
        requested_by (str): Who asked for it: the id of an API key.
        status (SandboxStatus): Where a sandbox stands.
        template (str): That template's name.
        template_id (str): The template that it started from.
        timeout_sec (int): Idle seconds until it is paused by itself; 0 means never.
        vcpus (int): Virtual CPUs.
        destroyed_at (datetime.datetime | Unset): When it was gone.
        disk_mb (int | Unset): Size of the root disk, in MiB, where one was asked for.
        host_ip (str | Unset): Its address, reachable from its host.
        reason (SandboxReason | Unset): Why a sandbox failed.
        snapshot (SandboxSnapshot | Unset): The template that a sandbox becomes.
    """

    created_at: datetime.datetime
    host_id: str
    id: str
    last_active_at: datetime.datetime
    memory_mb: int
    requested_by: str
    status: SandboxStatus
    template: str
    template_id: str
    timeout_sec: int
    vcpus: int
    destroyed_at: datetime.datetime | Unset = UNSET
    disk_mb: int | Unset = UNSET
    host_ip: str | Unset = UNSET
    reason: SandboxReason | Unset = UNSET
    snapshot: SandboxSnapshot | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        created_at = self.created_at.isoformat()

        host_id = self.host_id

        id = self.id

        last_active_at = self.last_active_at.isoformat()

        memory_mb = self.memory_mb

        requested_by = self.requested_by

        status = self.status.value

        template = self.template

        template_id = self.template_id

        timeout_sec = self.timeout_sec

        vcpus = self.vcpus

        destroyed_at: str | Unset = UNSET
        if not isinstance(self.destroyed_at, Unset):
            destroyed_at = self.destroyed_at.isoformat()

        disk_mb = self.disk_mb

        host_ip = self.host_ip

        reason: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reason, Unset):
            reason = self.reason.to_dict()

        snapshot: dict[str, Any] | Unset = UNSET
        if not isinstance(self.snapshot, Unset):
            snapshot = self.snapshot.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "created_at": created_at,
                "host_id": host_id,
                "id": id,
                "last_active_at": last_active_at,
                "memory_mb": memory_mb,
                "requested_by": requested_by,
                "status": status,
                "template": template,
                "template_id": template_id,
                "timeout_sec": timeout_sec,
                "vcpus": vcpus,
            }
        )
        if destroyed_at is not UNSET:
            field_dict["destroyed_at"] = destroyed_at
        if disk_mb is not UNSET:
            field_dict["disk_mb"] = disk_mb
        if host_ip is not UNSET:
            field_dict["host_ip"] = host_ip
        if reason is not UNSET:
            field_dict["reason"] = reason
        if snapshot is not UNSET:
            field_dict["snapshot"] = snapshot

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.sandbox_reason import SandboxReason
        from ..models.sandbox_snapshot import SandboxSnapshot

        d = dict(src_dict)
        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        host_id = d.pop("host_id")

        id = d.pop("id")

        last_active_at = datetime.datetime.fromisoformat(d.pop("last_active_at"))

        memory_mb = d.pop("memory_mb")

        requested_by = d.pop("requested_by")

        status = SandboxStatus(d.pop("status"))

        template = d.pop("template")

        template_id = d.pop("template_id")

        timeout_sec = d.pop("timeout_sec")

        vcpus = d.pop("vcpus")

        _destroyed_at = d.pop("destroyed_at", UNSET)
        destroyed_at: datetime.datetime | Unset
        if isinstance(_destroyed_at, Unset):
            destroyed_at = UNSET
        else:
            destroyed_at = datetime.datetime.fromisoformat(_destroyed_at)

        disk_mb = d.pop("disk_mb", UNSET)

        host_ip = d.pop("host_ip", UNSET)

        _reason = d.pop("reason", UNSET)
        reason: SandboxReason | Unset
        if isinstance(_reason, Unset):
            reason = UNSET
        else:
            reason = SandboxReason.from_dict(_reason)

        _snapshot = d.pop("snapshot", UNSET)
        snapshot: SandboxSnapshot | Unset
        if isinstance(_snapshot, Unset):
            snapshot = UNSET
        else:
            snapshot = SandboxSnapshot.from_dict(_snapshot)

        sandbox = cls(
            created_at=created_at,
            host_id=host_id,
            id=id,
            last_active_at=last_active_at,
            memory_mb=memory_mb,
            requested_by=requested_by,
            status=status,
            template=template,
            template_id=template_id,
            timeout_sec=timeout_sec,
            vcpus=vcpus,
            destroyed_at=destroyed_at,
            disk_mb=disk_mb,
            host_ip=host_ip,
            reason=reason,
            snapshot=snapshot,
        )

        sandbox.additional_properties = d
        return sandbox

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
