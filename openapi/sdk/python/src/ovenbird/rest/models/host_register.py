from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="HostRegister")


@_attrs_define
class HostRegister:
    """What an agent registers with. Unknown fields are refused.

    Attributes:
        address (str): Where the agent is reached, as `host:port`; an IPv6 address in brackets.
        csr (str): A certificate signing request, PEM, for an ECDSA key on P-256. Only its key counts.
        token (str): The token of the host's announcement.
    """

    address: str
    csr: str
    token: str

    def to_dict(self) -> dict[str, Any]:
        address = self.address

        csr = self.csr

        token = self.token

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "address": address,
                "csr": csr,
                "token": token,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        address = d.pop("address")

        csr = d.pop("csr")

        token = d.pop("token")

        host_register = cls(
            address=address,
            csr=csr,
            token=token,
        )

        return host_register
