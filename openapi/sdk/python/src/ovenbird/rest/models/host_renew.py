from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="HostRenew")


@_attrs_define
class HostRenew:
    """What an agent renews with. Unknown fields are refused.

    Attributes:
        csr (str): A certificate signing request, PEM, for the key that the agent registered with, and signed by it.
    """

    csr: str

    def to_dict(self) -> dict[str, Any]:
        csr = self.csr

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "csr": csr,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        csr = d.pop("csr")

        host_renew = cls(
            csr=csr,
        )

        return host_renew
