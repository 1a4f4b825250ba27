from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Context")


@_attrs_define
class Context:
    """An archive that `COPY` can take from.

    Attributes:
        entries (int): Files, directories and links in it.
        sha256 (str): sha256 of the archive, in hex: a build's `context`.
        size_bytes (int): Size of the archive, in bytes.
        unpacked_bytes (int): Size of its files when they are unpacked, in bytes.
        uploaded_at (datetime.datetime): When it was uploaded first.
        uploaded_by (str): Who uploaded it first.
        used_at (datetime.datetime): When it was last uploaded, or named by a new build. It is removed a while after
            that (14 days unless the
            installation says otherwise), and not while a build needs it.
    """

    entries: int
    sha256: str
    size_bytes: int
    unpacked_bytes: int
    uploaded_at: datetime.datetime
    uploaded_by: str
    used_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        entries = self.entries

        sha256 = self.sha256

        size_bytes = self.size_bytes

        unpacked_bytes = self.unpacked_bytes

        uploaded_at = self.uploaded_at.isoformat()

        uploaded_by = self.uploaded_by

        used_at = self.used_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "entries": entries,
                "sha256": sha256,
                "size_bytes": size_bytes,
                "unpacked_bytes": unpacked_bytes,
                "uploaded_at": uploaded_at,
                "uploaded_by": uploaded_by,
                "used_at": used_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        entries = d.pop("entries")

        sha256 = d.pop("sha256")

        size_bytes = d.pop("size_bytes")

        unpacked_bytes = d.pop("unpacked_bytes")

        uploaded_at = datetime.datetime.fromisoformat(d.pop("uploaded_at"))

        uploaded_by = d.pop("uploaded_by")

        used_at = datetime.datetime.fromisoformat(d.pop("used_at"))

        context = cls(
            entries=entries,
            sha256=sha256,
            size_bytes=size_bytes,
            unpacked_bytes=unpacked_bytes,
            uploaded_at=uploaded_at,
            uploaded_by=uploaded_by,
            used_at=used_at,
        )

        context.additional_properties = d
        return context

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
