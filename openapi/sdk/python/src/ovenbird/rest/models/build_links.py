from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="BuildLinks")


@_attrs_define
class BuildLinks:
    """Paths of a build.

    Attributes:
        logs (str): Its log, in pages.
        self_ (str): The build.
        stream (str): Its log, live.
        cancel (str | Unset): Cancels it; there as long as it can be.
        retry (str | Unset): Retries it; there once it can be.
        retry_of (str | Unset): The build that this one repeats.
    """

    logs: str
    self_: str
    stream: str
    cancel: str | Unset = UNSET
    retry: str | Unset = UNSET
    retry_of: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        logs = self.logs

        self_ = self.self_

        stream = self.stream

        cancel = self.cancel

        retry = self.retry

        retry_of = self.retry_of

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "logs": logs,
                "self": self_,
                "stream": stream,
            }
        )
        if cancel is not UNSET:
            field_dict["cancel"] = cancel
        if retry is not UNSET:
            field_dict["retry"] = retry
        if retry_of is not UNSET:
            field_dict["retry_of"] = retry_of

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        logs = d.pop("logs")

        self_ = d.pop("self")

        stream = d.pop("stream")

        cancel = d.pop("cancel", UNSET)

        retry = d.pop("retry", UNSET)

        retry_of = d.pop("retry_of", UNSET)

        build_links = cls(
            logs=logs,
            self_=self_,
            stream=stream,
            cancel=cancel,
            retry=retry,
            retry_of=retry_of,
        )

        build_links.additional_properties = d
        return build_links

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
