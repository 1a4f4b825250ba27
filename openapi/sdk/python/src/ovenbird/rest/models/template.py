from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.template_origin import TemplateOrigin
from ..models.template_type import TemplateType
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.template_default_env import TemplateDefaultEnv
    from ..models.template_placement import TemplatePlacement


T = TypeVar("T", bound="Template")


@_attrs_define
class Template:
    """What sandboxes start from.

    Attributes:
        created_at (datetime.datetime): When it was published.
        default_env (TemplateDefaultEnv): Environment for whoever starts a sandbox from it.
        id (str): Its id.
        memory_mb (int): Memory of a sandbox, in MiB.
        name (str): Its name.
        origin (TemplateOrigin): Where a template comes from.
        size_bytes (int): Its size on a host, in bytes.
        tags (list[str]): The tags that point to it now.
        type_ (TemplateType): What a template holds.
        vcpus (int): Virtual CPUs of a sandbox.
        base_template_id (str | Unset): The template that its build, or its sandbox, started from.
        build_id (str | Unset): The build that made it, where one did.
        default_user (str | Unset): User for whoever starts a sandbox from it.
        digest (str | Unset): Digest of its content, where it is known.
        placements (list[TemplatePlacement] | Unset): Where it is. Absent in lists.
    """

    created_at: datetime.datetime
    default_env: TemplateDefaultEnv
    id: str
    memory_mb: int
    name: str
    origin: TemplateOrigin
    size_bytes: int
    tags: list[str]
    type_: TemplateType
    vcpus: int
    base_template_id: str | Unset = UNSET
    build_id: str | Unset = UNSET
    default_user: str | Unset = UNSET
    digest: str | Unset = UNSET
    placements: list[TemplatePlacement] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        created_at = self.created_at.isoformat()

        default_env = self.default_env.to_dict()

        id = self.id

        memory_mb = self.memory_mb

        name = self.name

        origin = self.origin.value

        size_bytes = self.size_bytes

        tags = self.tags

        type_ = self.type_.value

        vcpus = self.vcpus

        base_template_id = self.base_template_id

        build_id = self.build_id

        default_user = self.default_user

        digest = self.digest

        placements: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.placements, Unset):
            placements = []
            for placements_item_data in self.placements:
                placements_item = placements_item_data.to_dict()
                placements.append(placements_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "created_at": created_at,
                "default_env": default_env,
                "id": id,
                "memory_mb": memory_mb,
                "name": name,
                "origin": origin,
                "size_bytes": size_bytes,
                "tags": tags,
                "type": type_,
                "vcpus": vcpus,
            }
        )
        if base_template_id is not UNSET:
            field_dict["base_template_id"] = base_template_id
        if build_id is not UNSET:
            field_dict["build_id"] = build_id
        if default_user is not UNSET:
            field_dict["default_user"] = default_user
        if digest is not UNSET:
            field_dict["digest"] = digest
        if placements is not UNSET:
            field_dict["placements"] = placements

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.template_default_env import TemplateDefaultEnv
        from ..models.template_placement import TemplatePlacement

        d = dict(src_dict)
        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        default_env = TemplateDefaultEnv.from_dict(d.pop("default_env"))

        id = d.pop("id")

        memory_mb = d.pop("memory_mb")

        name = d.pop("name")

        origin = TemplateOrigin(d.pop("origin"))

        size_bytes = d.pop("size_bytes")

        tags = cast(list[str], d.pop("tags"))

        type_ = TemplateType(d.pop("type"))

        vcpus = d.pop("vcpus")

        base_template_id = d.pop("base_template_id", UNSET)

        build_id = d.pop("build_id", UNSET)

        default_user = d.pop("default_user", UNSET)

        digest = d.pop("digest", UNSET)

        _placements = d.pop("placements", UNSET)
        placements: list[TemplatePlacement] | Unset = UNSET
        if _placements is not UNSET:
            placements = []
            for placements_item_data in _placements:
                placements_item = TemplatePlacement.from_dict(placements_item_data)

                placements.append(placements_item)

        template = cls(
            created_at=created_at,
            default_env=default_env,
            id=id,
            memory_mb=memory_mb,
            name=name,
            origin=origin,
            size_bytes=size_bytes,
            tags=tags,
            type_=type_,
            vcpus=vcpus,
            base_template_id=base_template_id,
            build_id=build_id,
            default_user=default_user,
            digest=digest,
            placements=placements,
        )

        template.additional_properties = d
        return template

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
