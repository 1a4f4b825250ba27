from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.host import Host


T = TypeVar("T", bound="NewHost")


@_attrs_define
class NewHost:
    """A host that waits for its agent.

    Attributes:
        host (Host): A machine that runs sandboxes.
        token (str): What its agent is to register with, `ovr_…`. It is told here only, and can be used once.
        token_expires_at (datetime.datetime): When the token is over.
    """

    host: Host
    token: str
    token_expires_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        host = self.host.to_dict()

        token = self.token

        token_expires_at = self.token_expires_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "host": host,
                "token": token,
                "token_expires_at": token_expires_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.host import Host

        d = dict(src_dict)
        host = Host.from_dict(d.pop("host"))

        token = d.pop("token")

        token_expires_at = datetime.datetime.fromisoformat(d.pop("token_expires_at"))

        new_host = cls(
            host=host,
            token=token,
            token_expires_at=token_expires_at,
        )

        new_host.additional_properties = d
        return new_host

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
