from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.audit_outcome import AuditOutcome
from ..types import UNSET, Unset

T = TypeVar("T", bound="AuditEntry")


@_attrs_define
class AuditEntry:
    """One request for a change.

    Attributes:
        action (str): The operation, by its id in the OpenAPI document.
        actor (str): The id of the key that asked, or of the host whose agent did; `anonymous` without a valid one,
            `command-line` for `ovenbird-api key`.
        at (datetime.datetime): When it came.
        id (str): Its id.
        outcome (AuditOutcome): What came of a request.
        target (str): The path.
        address (str | Unset): Where the request came from.
        code (str | Unset): The stable word of the error, where one was answered.
        location (str | Unset): Where what was made is.
        replayed (bool | Unset): It was answered as the same request before it, and not carried out again.
        request_id (str | Unset): The request, as its answer's `X-Request-Id` has it.
        status (int | Unset): HTTP status of the answer, once there is one.
    """

    action: str
    actor: str
    at: datetime.datetime
    id: str
    outcome: AuditOutcome
    target: str
    address: str | Unset = UNSET
    code: str | Unset = UNSET
    location: str | Unset = UNSET
    replayed: bool | Unset = UNSET
    request_id: str | Unset = UNSET
    status: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        action = self.action

        actor = self.actor

        at = self.at.isoformat()

        id = self.id

        outcome = self.outcome.value

        target = self.target

        address = self.address

        code = self.code

        location = self.location

        replayed = self.replayed

        request_id = self.request_id

        status = self.status

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "action": action,
                "actor": actor,
                "at": at,
                "id": id,
                "outcome": outcome,
                "target": target,
            }
        )
        if address is not UNSET:
            field_dict["address"] = address
        if code is not UNSET:
            field_dict["code"] = code
        if location is not UNSET:
            field_dict["location"] = location
        if replayed is not UNSET:
            field_dict["replayed"] = replayed
        if request_id is not UNSET:
            field_dict["request_id"] = request_id
        if status is not UNSET:
            field_dict["status"] = status

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        action = d.pop("action")

        actor = d.pop("actor")

        at = datetime.datetime.fromisoformat(d.pop("at"))

        id = d.pop("id")

        outcome = AuditOutcome(d.pop("outcome"))

        target = d.pop("target")

        address = d.pop("address", UNSET)

        code = d.pop("code", UNSET)

        location = d.pop("location", UNSET)

        replayed = d.pop("replayed", UNSET)

        request_id = d.pop("request_id", UNSET)

        status = d.pop("status", UNSET)

        audit_entry = cls(
            action=action,
            actor=actor,
            at=at,
            id=id,
            outcome=outcome,
            target=target,
            address=address,
            code=code,
            location=location,
            replayed=replayed,
            request_id=request_id,
            status=status,
        )

        audit_entry.additional_properties = d
        return audit_entry

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
