from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define

if TYPE_CHECKING:
    from ..models.host_relabel_labels import HostRelabelLabels


T = TypeVar("T", bound="HostRelabel")


@_attrs_define
class HostRelabel:
    """Labels of a host.

    Attributes:
        labels (HostRelabelLabels): As in the announcement of a host. They replace those that it has.
    """

    labels: HostRelabelLabels

    def to_dict(self) -> dict[str, Any]:
        labels = self.labels.to_dict()

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "labels": labels,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.host_relabel_labels import HostRelabelLabels

        d = dict(src_dict)
        labels = HostRelabelLabels.from_dict(d.pop("labels"))

        host_relabel = cls(
            labels=labels,
        )

        return host_relabel
