from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.session_scope import SessionScope

T = TypeVar("T", bound="Session")


@_attrs_define
class Session:
    """A browser that is signed in.

    Attributes:
        csrf_token (str): Whatever changes something must carry it as `X-CSRF-Token`.
        expires_at (datetime.datetime): When the session ends by itself.
        key_id (str): The key that it signed in with.
        key_name (str): What people call that key.
        scope (SessionScope): What a key may do.
    """

    csrf_token: str
    expires_at: datetime.datetime
    key_id: str
    key_name: str
    scope: SessionScope
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        csrf_token = self.csrf_token

        expires_at = self.expires_at.isoformat()

        key_id = self.key_id

        key_name = self.key_name

        scope = self.scope.value

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "csrf_token": csrf_token,
                "expires_at": expires_at,
                "key_id": key_id,
                "key_name": key_name,
                "scope": scope,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        csrf_token = d.pop("csrf_token")

        expires_at = datetime.datetime.fromisoformat(d.pop("expires_at"))

        key_id = d.pop("key_id")

        key_name = d.pop("key_name")

        scope = SessionScope(d.pop("scope"))

        session = cls(
            csrf_token=csrf_token,
            expires_at=expires_at,
            key_id=key_id,
            key_name=key_name,
            scope=scope,
        )

        session.additional_properties = d
        return session

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
