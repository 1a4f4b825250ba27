from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="HostCertificate")


@_attrs_define
class HostCertificate:
    """A certificate for an agent.

    Attributes:
        ca (str): The authority that signed it, and whose clients may call the agent, PEM.
        certificate (str): The certificate, PEM.
        expires_at (datetime.datetime): When it ends.
        host_id (str): The host.
        issued_at (datetime.datetime): When it was signed.
        server_name (str): The only name in the certificate.
    """

    ca: str
    certificate: str
    expires_at: datetime.datetime
    host_id: str
    issued_at: datetime.datetime
    server_name: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        ca = self.ca

        certificate = self.certificate

        expires_at = self.expires_at.isoformat()

        host_id = self.host_id

        issued_at = self.issued_at.isoformat()

        server_name = self.server_name

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "ca": ca,
                "certificate": certificate,
                "expires_at": expires_at,
                "host_id": host_id,
                "issued_at": issued_at,
                "server_name": server_name,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        ca = d.pop("ca")

        certificate = d.pop("certificate")

        expires_at = datetime.datetime.fromisoformat(d.pop("expires_at"))

        host_id = d.pop("host_id")

        issued_at = datetime.datetime.fromisoformat(d.pop("issued_at"))

        server_name = d.pop("server_name")

        host_certificate = cls(
            ca=ca,
            certificate=certificate,
            expires_at=expires_at,
            host_id=host_id,
            issued_at=issued_at,
            server_name=server_name,
        )

        host_certificate.additional_properties = d
        return host_certificate

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
