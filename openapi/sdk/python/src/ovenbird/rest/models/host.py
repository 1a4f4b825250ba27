from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.host_status import HostStatus
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.host_allocated import HostAllocated
    from ..models.host_capacity import HostCapacity
    from ..models.host_drain import HostDrain
    from ..models.host_labels import HostLabels
    from ..models.host_versions import HostVersions


T = TypeVar("T", bound="Host")


@_attrs_define
class Host:
    """A machine that runs sandboxes.

    Attributes:
        address (str): `host:port` of its agent; empty until it has registered.
        allocated (HostAllocated): What a host's agent has promised.
        builds (int): Builds that run there, or whose sandbox waits there for the next runner.
        capacity (HostCapacity): What a host may promise to sandboxes.
        created_at (datetime.datetime): When it was first seen.
        id (str): Its id.
        labels (HostLabels): Words for placement.
        sandboxes (int): Sandboxes that were started from templates there, paused ones too.
        server_name (str): The name in its agent's certificate.
        status (HostStatus): Where a host stands.
        templates (int): Templates that it holds.
        versions (HostVersions): What runs on a host. Empty texts until it has answered once.
        certificate_expires_at (datetime.datetime | Unset): When its agent's certificate ends, which the agent renews
            before.
        drain (HostDrain | Unset): Who wants a host to take nothing new.
        heartbeat (datetime.datetime | Unset): When it last answered.
        name (str | Unset): What people call it.
        registered_at (datetime.datetime | Unset): When its agent registered; absent for a host of the bridges'
            configuration.
    """

    address: str
    allocated: HostAllocated
    builds: int
    capacity: HostCapacity
    created_at: datetime.datetime
    id: str
    labels: HostLabels
    sandboxes: int
    server_name: str
    status: HostStatus
    templates: int
    versions: HostVersions
    certificate_expires_at: datetime.datetime | Unset = UNSET
    drain: HostDrain | Unset = UNSET
    heartbeat: datetime.datetime | Unset = UNSET
    name: str | Unset = UNSET
    registered_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        address = self.address

        allocated = self.allocated.to_dict()

        builds = self.builds

        capacity = self.capacity.to_dict()

        created_at = self.created_at.isoformat()

        id = self.id

        labels = self.labels.to_dict()

        sandboxes = self.sandboxes

        server_name = self.server_name

        status = self.status.value

        templates = self.templates

        versions = self.versions.to_dict()

        certificate_expires_at: str | Unset = UNSET
        if not isinstance(self.certificate_expires_at, Unset):
            certificate_expires_at = self.certificate_expires_at.isoformat()

        drain: dict[str, Any] | Unset = UNSET
        if not isinstance(self.drain, Unset):
            drain = self.drain.to_dict()

        heartbeat: str | Unset = UNSET
        if not isinstance(self.heartbeat, Unset):
            heartbeat = self.heartbeat.isoformat()

        name = self.name

        registered_at: str | Unset = UNSET
        if not isinstance(self.registered_at, Unset):
            registered_at = self.registered_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "address": address,
                "allocated": allocated,
                "builds": builds,
                "capacity": capacity,
                "created_at": created_at,
                "id": id,
                "labels": labels,
                "sandboxes": sandboxes,
                "server_name": server_name,
                "status": status,
                "templates": templates,
                "versions": versions,
            }
        )
        if certificate_expires_at is not UNSET:
            field_dict["certificate_expires_at"] = certificate_expires_at
        if drain is not UNSET:
            field_dict["drain"] = drain
        if heartbeat is not UNSET:
            field_dict["heartbeat"] = heartbeat
        if name is not UNSET:
            field_dict["name"] = name
        if registered_at is not UNSET:
            field_dict["registered_at"] = registered_at

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.host_allocated import HostAllocated
        from ..models.host_capacity import HostCapacity
        from ..models.host_drain import HostDrain
        from ..models.host_labels import HostLabels
        from ..models.host_versions import HostVersions

        d = dict(src_dict)
        address = d.pop("address")

        allocated = HostAllocated.from_dict(d.pop("allocated"))

        builds = d.pop("builds")

        capacity = HostCapacity.from_dict(d.pop("capacity"))

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        id = d.pop("id")

        labels = HostLabels.from_dict(d.pop("labels"))

        sandboxes = d.pop("sandboxes")

        server_name = d.pop("server_name")

        status = HostStatus(d.pop("status"))

        templates = d.pop("templates")

        versions = HostVersions.from_dict(d.pop("versions"))

        _certificate_expires_at = d.pop("certificate_expires_at", UNSET)
        certificate_expires_at: datetime.datetime | Unset
        if isinstance(_certificate_expires_at, Unset):
            certificate_expires_at = UNSET
        else:
            certificate_expires_at = datetime.datetime.fromisoformat(
                _certificate_expires_at
            )

        _drain = d.pop("drain", UNSET)
        drain: HostDrain | Unset
        if isinstance(_drain, Unset):
            drain = UNSET
        else:
            drain = HostDrain.from_dict(_drain)

        _heartbeat = d.pop("heartbeat", UNSET)
        heartbeat: datetime.datetime | Unset
        if isinstance(_heartbeat, Unset):
            heartbeat = UNSET
        else:
            heartbeat = datetime.datetime.fromisoformat(_heartbeat)

        name = d.pop("name", UNSET)

        _registered_at = d.pop("registered_at", UNSET)
        registered_at: datetime.datetime | Unset
        if isinstance(_registered_at, Unset):
            registered_at = UNSET
        else:
            registered_at = datetime.datetime.fromisoformat(_registered_at)

        host = cls(
            address=address,
            allocated=allocated,
            builds=builds,
            capacity=capacity,
            created_at=created_at,
            id=id,
            labels=labels,
            sandboxes=sandboxes,
            server_name=server_name,
            status=status,
            templates=templates,
            versions=versions,
            certificate_expires_at=certificate_expires_at,
            drain=drain,
            heartbeat=heartbeat,
            name=name,
            registered_at=registered_at,
        )

        host.additional_properties = d
        return host

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
