from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.waiting_build import WaitingBuild


T = TypeVar("T", bound="Queue")


@_attrs_define
class Queue:
    """The queue.

    Attributes:
        depth (int): Builds that wait, everybody's.
        held (int): Those of them that wait because their key has as many builds running as it may.
        items (list[WaitingBuild]): The builds that wait, the one that waits longest first. A key of scope `build` sees
            its own.
        running (int): Builds that hold a slot of a runner, everybody's.
        slots_wanted (int): Slots with which no build would wait for a runner: `depth` without `held`, and `running`. An
            autoscaler divides
            it by the slots of one runner; work in flight counts, so no busy runner is scaled away.
        free_slots (int | Unset): Slots of runners that wait for a build of the default lane; absent while NATS does not
            say.
        next_cursor (str | Unset): Pass it as `cursor` for the next page; absent on the last one.
    """

    depth: int
    held: int
    items: list[WaitingBuild]
    running: int
    slots_wanted: int
    free_slots: int | Unset = UNSET
    next_cursor: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        depth = self.depth

        held = self.held

        items = []
        for items_item_data in self.items:
            items_item = items_item_data.to_dict()
            items.append(items_item)

        running = self.running

        slots_wanted = self.slots_wanted

        free_slots = self.free_slots

        next_cursor = self.next_cursor

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "depth": depth,
                "held": held,
                "items": items,
                "running": running,
                "slots_wanted": slots_wanted,
            }
        )
        if free_slots is not UNSET:
            field_dict["free_slots"] = free_slots
        if next_cursor is not UNSET:
            field_dict["next_cursor"] = next_cursor

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.waiting_build import WaitingBuild

        d = dict(src_dict)
        depth = d.pop("depth")

        held = d.pop("held")

        items = []
        _items = d.pop("items")
        for items_item_data in _items:
            items_item = WaitingBuild.from_dict(items_item_data)

            items.append(items_item)

        running = d.pop("running")

        slots_wanted = d.pop("slots_wanted")

        free_slots = d.pop("free_slots", UNSET)

        next_cursor = d.pop("next_cursor", UNSET)

        queue = cls(
            depth=depth,
            held=held,
            items=items,
            running=running,
            slots_wanted=slots_wanted,
            free_slots=free_slots,
            next_cursor=next_cursor,
        )

        queue.additional_properties = d
        return queue

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
