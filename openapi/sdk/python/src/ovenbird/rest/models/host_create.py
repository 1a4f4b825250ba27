from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.host_create_labels import HostCreateLabels


T = TypeVar("T", bound="HostCreate")


@_attrs_define
class HostCreate:
    """A host to be. Unknown fields are refused.

    Attributes:
        labels (HostCreateLabels | Unset): Words for placement: a build that asks for some runs on hosts that have all
            of them. At most 16; a name is 1 to
            63 of a-z, 0-9 and, between them, `.`, `_`, `/` and `-`; a value at most 63 of A-Z, a-z, 0-9, `.`, `_`, `-`.
        name (str | Unset): What people call it; it need not be unique.
    """

    labels: HostCreateLabels | Unset = UNSET
    name: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        labels: dict[str, Any] | Unset = UNSET
        if not isinstance(self.labels, Unset):
            labels = self.labels.to_dict()

        name = self.name

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if labels is not UNSET:
            field_dict["labels"] = labels
        if name is not UNSET:
            field_dict["name"] = name

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.host_create_labels import HostCreateLabels

        d = dict(src_dict)
        _labels = d.pop("labels", UNSET)
        labels: HostCreateLabels | Unset
        if isinstance(_labels, Unset):
            labels = UNSET
        else:
            labels = HostCreateLabels.from_dict(_labels)

        name = d.pop("name", UNSET)

        host_create = cls(
            labels=labels,
            name=name,
        )

        return host_create
