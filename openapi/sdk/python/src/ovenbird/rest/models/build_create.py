from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.build_create_labels import BuildCreateLabels
    from ..models.recipe_step import RecipeStep


T = TypeVar("T", bound="BuildCreate")


@_attrs_define
class BuildCreate:
    """A build to be: a recipe and what it becomes. Unknown fields are refused.

    Attributes:
        name (str): Name of the template to be.
        recipe (list[RecipeStep | str]): The steps, in order: lines such as `RUN apt-get install -y nginx`, or objects.
            At most 200 steps.
        base_template (str | Unset): The template to start from, as `name` or `name:tag`. Default: 'minimal'.
        context (str | Unset): sha256, in hex, of an uploaded build context, which `COPY` takes from.
        disk_mb (int | Unset): Size of the root disk, in MiB; as large as the base template's when absent.
        healthcheck (str | Unset): When the template is ready: `[--interval=3s] [--timeout=10s] [--start-period=0s]
            [--retries=20] <sh
            command>`. With it the template is a memory snapshot of the running sandbox, without it an image.
        labels (BuildCreateLabels | Unset): Labels that the host must have, all of them; any host will do when absent.
        lane (str | Unset): The lane whose runners may take the build. Default: 'default'.
        memory_mb (int | Unset): Memory of the sandbox, in MiB. The largest host decides how much there may be. Default:
            512.
        skip_hooks (bool | Unset): Leave out the hooks that the base template runs before and after the steps. Default:
            False.
        tag (str | Unset): Tag of the template to be; once the build succeeds, `name:tag` points to its template.
            Default: 'latest'.
        vcpus (int | Unset): Virtual CPUs of the sandbox. The largest host decides how many there may be. Default: 1.
    """

    name: str
    recipe: list[RecipeStep | str]
    base_template: str | Unset = "minimal"
    context: str | Unset = UNSET
    disk_mb: int | Unset = UNSET
    healthcheck: str | Unset = UNSET
    labels: BuildCreateLabels | Unset = UNSET
    lane: str | Unset = "default"
    memory_mb: int | Unset = 512
    skip_hooks: bool | Unset = False
    tag: str | Unset = "latest"
    vcpus: int | Unset = 1

    def to_dict(self) -> dict[str, Any]:
        from ..models.recipe_step import RecipeStep

        name = self.name

        recipe = []
        for recipe_item_data in self.recipe:
            recipe_item: dict[str, Any] | str
            if isinstance(recipe_item_data, RecipeStep):
                recipe_item = recipe_item_data.to_dict()
            else:
                recipe_item = recipe_item_data
            recipe.append(recipe_item)

        base_template = self.base_template

        context = self.context

        disk_mb = self.disk_mb

        healthcheck = self.healthcheck

        labels: dict[str, Any] | Unset = UNSET
        if not isinstance(self.labels, Unset):
            labels = self.labels.to_dict()

        lane = self.lane

        memory_mb = self.memory_mb

        skip_hooks = self.skip_hooks

        tag = self.tag

        vcpus = self.vcpus

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "recipe": recipe,
            }
        )
        if base_template is not UNSET:
            field_dict["base_template"] = base_template
        if context is not UNSET:
            field_dict["context"] = context
        if disk_mb is not UNSET:
            field_dict["disk_mb"] = disk_mb
        if healthcheck is not UNSET:
            field_dict["healthcheck"] = healthcheck
        if labels is not UNSET:
            field_dict["labels"] = labels
        if lane is not UNSET:
            field_dict["lane"] = lane
        if memory_mb is not UNSET:
            field_dict["memory_mb"] = memory_mb
        if skip_hooks is not UNSET:
            field_dict["skip_hooks"] = skip_hooks
        if tag is not UNSET:
            field_dict["tag"] = tag
        if vcpus is not UNSET:
            field_dict["vcpus"] = vcpus

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.build_create_labels import BuildCreateLabels
        from ..models.recipe_step import RecipeStep

        d = dict(src_dict)
        name = d.pop("name")

        recipe = []
        _recipe = d.pop("recipe")
        for recipe_item_data in _recipe:

            def _parse_recipe_item(data: object) -> RecipeStep | str:
                try:
                    if not isinstance(data, dict):
                        raise TypeError()
                    componentsschemas_recipe_entry_type_1 = RecipeStep.from_dict(data)

                    return componentsschemas_recipe_entry_type_1
                except (TypeError, ValueError, AttributeError, KeyError):
                    pass
                return cast(RecipeStep | str, data)

            recipe_item = _parse_recipe_item(recipe_item_data)

            recipe.append(recipe_item)

        base_template = d.pop("base_template", UNSET)

        context = d.pop("context", UNSET)

        disk_mb = d.pop("disk_mb", UNSET)

        healthcheck = d.pop("healthcheck", UNSET)

        _labels = d.pop("labels", UNSET)
        labels: BuildCreateLabels | Unset
        if isinstance(_labels, Unset):
            labels = UNSET
        else:
            labels = BuildCreateLabels.from_dict(_labels)

        lane = d.pop("lane", UNSET)

        memory_mb = d.pop("memory_mb", UNSET)

        skip_hooks = d.pop("skip_hooks", UNSET)

        tag = d.pop("tag", UNSET)

        vcpus = d.pop("vcpus", UNSET)

        build_create = cls(
            name=name,
            recipe=recipe,
            base_template=base_template,
            context=context,
            disk_mb=disk_mb,
            healthcheck=healthcheck,
            labels=labels,
            lane=lane,
            memory_mb=memory_mb,
            skip_hooks=skip_hooks,
            tag=tag,
            vcpus=vcpus,
        )

        return build_create
