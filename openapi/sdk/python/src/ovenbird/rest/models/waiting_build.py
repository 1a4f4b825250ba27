from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.wait_reason import WaitReason
from ..types import UNSET, Unset

T = TypeVar("T", bound="WaitingBuild")


@_attrs_define
class WaitingBuild:
    """A build that waits.

    Attributes:
        build_id (str): The build.
        held (bool): It waits because its key has as many builds running as it may; those of other keys pass it.
        lane (str): The lane whose runners may take it.
        message (str): The same, and what to do, for people.
        name (str): Name of the template to be.
        position (int): Its place in the lane, from 1; everybody's builds count, but those that wait for the limit of
            their key.
        queued_at (datetime.datetime): When it was put into the queue.
        reason (WaitReason): Why a build waits.
        tag (str): Tag of the template to be.
        eta (datetime.datetime | Unset): When it will probably have ended, from how long the last builds of its name,
            and of those before it,
            took. Absent when that cannot be told.
    """

    build_id: str
    held: bool
    lane: str
    message: str
    name: str
    position: int
    queued_at: datetime.datetime
    reason: WaitReason
    tag: str
    eta: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        build_id = self.build_id

        held = self.held

        lane = self.lane

        message = self.message

        name = self.name

        position = self.position

        queued_at = self.queued_at.isoformat()

        reason = self.reason.value

        tag = self.tag

        eta: str | Unset = UNSET
        if not isinstance(self.eta, Unset):
            eta = self.eta.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "build_id": build_id,
                "held": held,
                "lane": lane,
                "message": message,
                "name": name,
                "position": position,
                "queued_at": queued_at,
                "reason": reason,
                "tag": tag,
            }
        )
        if eta is not UNSET:
            field_dict["eta"] = eta

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        build_id = d.pop("build_id")

        held = d.pop("held")

        lane = d.pop("lane")

        message = d.pop("message")

        name = d.pop("name")

        position = d.pop("position")

        queued_at = datetime.datetime.fromisoformat(d.pop("queued_at"))

        reason = WaitReason(d.pop("reason"))

        tag = d.pop("tag")

        _eta = d.pop("eta", UNSET)
        eta: datetime.datetime | Unset
        if isinstance(_eta, Unset):
            eta = UNSET
        else:
            eta = datetime.datetime.fromisoformat(_eta)

        waiting_build = cls(
            build_id=build_id,
            held=held,
            lane=lane,
            message=message,
            name=name,
            position=position,
            queued_at=queued_at,
            reason=reason,
            tag=tag,
            eta=eta,
        )

        waiting_build.additional_properties = d
        return waiting_build

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
