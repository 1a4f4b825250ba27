from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.placement_state import PlacementState

T = TypeVar("T", bound="TemplatePlacement")


@_attrs_define
class TemplatePlacement:
    """A template on a host.

    Attributes:
        bytes_ (int): Its size there, in bytes.
        host_id (str): The host.
        state (PlacementState): What a host has of a template.
    """

    bytes_: int
    host_id: str
    state: PlacementState
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        bytes_ = self.bytes_

        host_id = self.host_id

        state = self.state.value

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "bytes": bytes_,
                "host_id": host_id,
                "state": state,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        bytes_ = d.pop("bytes")

        host_id = d.pop("host_id")

        state = PlacementState(d.pop("state"))

        template_placement = cls(
            bytes_=bytes_,
            host_id=host_id,
            state=state,
        )

        template_placement.additional_properties = d
        return template_placement

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
