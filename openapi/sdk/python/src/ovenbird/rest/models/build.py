from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.build_status import BuildStatus
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.build_default_env import BuildDefaultEnv
    from ..models.build_labels import BuildLabels
    from ..models.build_links import BuildLinks
    from ..models.build_reason import BuildReason
    from ..models.cancel import Cancel
    from ..models.recipe_step import RecipeStep
    from ..models.step_entry import StepEntry


T = TypeVar("T", bound="Build")


@_attrs_define
class Build:
    """A build.

    Attributes:
        attempt (int): The present or last attempt; 0 before the first.
        base_template (str): The template it starts from, as submitted.
        created_at (datetime.datetime): When it was submitted.
        current_step (int): The step that was started last, as you numbered it; 0 before the first.
        id (str): Its id.
        lane (str): The lane whose runners may take it.
        links (BuildLinks): Paths of a build.
        memory_mb (int): Memory of the sandbox, in MiB.
        name (str): Name of the template to be.
        queued_at (datetime.datetime): When it was last put into the queue.
        recipe (list[RecipeStep | str]): The steps, as submitted.
        requested_by (str): Who asked for it: the id of an API key.
        status (BuildStatus): Where a build stands.
        tag (str): Tag of the template to be.
        total_steps (int): Steps of the recipe.
        vcpus (int): Virtual CPUs of the sandbox.
        cancel (Cancel | Unset): A cancel.
        completed_at (datetime.datetime | Unset): When it ended.
        context (str | Unset): sha256, in hex, of the context that `COPY` takes from.
        default_env (BuildDefaultEnv | Unset): Environment for whoever starts a sandbox from its template; there once
            the build succeeded.
        default_user (str | Unset): User for whoever starts a sandbox from its template; there once the build succeeded.
        disk_mb (int | Unset): Size of the root disk, in MiB, where one was asked for.
        healthcheck (str | Unset): When the template is ready, as submitted.
        host_id (str | Unset): The host it runs or ran on.
        labels (BuildLabels | Unset): Labels that its host must have, where some were asked for.
        logs (list[StepEntry] | Unset): What each step did, with the head and tail of its output. Absent in lists.
        reason (BuildReason | Unset): Why a build failed or went back to the queue.
        retry_of (str | Unset): The build that this one repeats.
        sandbox_destroyed_at (datetime.datetime | Unset): When the sandbox of the cancelled build was gone, by its
            host's own word; absent when it had none.
        sandbox_id (str | Unset): The sandbox it runs or ran in.
        started_at (datetime.datetime | Unset): When its first attempt began.
        template_id (str | Unset): The template it made.
    """

    attempt: int
    base_template: str
    created_at: datetime.datetime
    current_step: int
    id: str
    lane: str
    links: BuildLinks
    memory_mb: int
    name: str
    queued_at: datetime.datetime
    recipe: list[RecipeStep | str]
    requested_by: str
    status: BuildStatus
    tag: str
    total_steps: int
    vcpus: int
    cancel: Cancel | Unset = UNSET
    completed_at: datetime.datetime | Unset = UNSET
    context: str | Unset = UNSET
    default_env: BuildDefaultEnv | Unset = UNSET
    default_user: str | Unset = UNSET
    disk_mb: int | Unset = UNSET
    healthcheck: str | Unset = UNSET
    host_id: str | Unset = UNSET
    labels: BuildLabels | Unset = UNSET
    logs: list[StepEntry] | Unset = UNSET
    reason: BuildReason | Unset = UNSET
    retry_of: str | Unset = UNSET
    sandbox_destroyed_at: datetime.datetime | Unset = UNSET
    sandbox_id: str | Unset = UNSET
    started_at: datetime.datetime | Unset = UNSET
    template_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.recipe_step import RecipeStep

        attempt = self.attempt

        base_template = self.base_template

        created_at = self.created_at.isoformat()

        current_step = self.current_step

        id = self.id

        lane = self.lane

        links = self.links.to_dict()

        memory_mb = self.memory_mb

        name = self.name

        queued_at = self.queued_at.isoformat()

        recipe = []
        for recipe_item_data in self.recipe:
            recipe_item: dict[str, Any] | str
            if isinstance(recipe_item_data, RecipeStep):
                recipe_item = recipe_item_data.to_dict()
            else:
                recipe_item = recipe_item_data
            recipe.append(recipe_item)

        requested_by = self.requested_by

        status = self.status.value

        tag = self.tag

        total_steps = self.total_steps

        vcpus = self.vcpus

        cancel: dict[str, Any] | Unset = UNSET
        if not isinstance(self.cancel, Unset):
            cancel = self.cancel.to_dict()

        completed_at: str | Unset = UNSET
        if not isinstance(self.completed_at, Unset):
            completed_at = self.completed_at.isoformat()

        context = self.context

        default_env: dict[str, Any] | Unset = UNSET
        if not isinstance(self.default_env, Unset):
            default_env = self.default_env.to_dict()

        default_user = self.default_user

        disk_mb = self.disk_mb

        healthcheck = self.healthcheck

        host_id = self.host_id

        labels: dict[str, Any] | Unset = UNSET
        if not isinstance(self.labels, Unset):
            labels = self.labels.to_dict()

        logs: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.logs, Unset):
            logs = []
            for logs_item_data in self.logs:
                logs_item = logs_item_data.to_dict()
                logs.append(logs_item)

        reason: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reason, Unset):
            reason = self.reason.to_dict()

        retry_of = self.retry_of

        sandbox_destroyed_at: str | Unset = UNSET
        if not isinstance(self.sandbox_destroyed_at, Unset):
            sandbox_destroyed_at = self.sandbox_destroyed_at.isoformat()

        sandbox_id = self.sandbox_id

        started_at: str | Unset = UNSET
        if not isinstance(self.started_at, Unset):
            started_at = self.started_at.isoformat()

        template_id = self.template_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "attempt": attempt,
                "base_template": base_template,
                "created_at": created_at,
                "current_step": current_step,
                "id": id,
                "lane": lane,
                "links": links,
                "memory_mb": memory_mb,
                "name": name,
                "queued_at": queued_at,
                "recipe": recipe,
                "requested_by": requested_by,
                "status": status,
                "tag": tag,
                "total_steps": total_steps,
                "vcpus": vcpus,
            }
        )
        if cancel is not UNSET:
            field_dict["cancel"] = cancel
        if completed_at is not UNSET:
            field_dict["completed_at"] = completed_at
        if context is not UNSET:
            field_dict["context"] = context
        if default_env is not UNSET:
            field_dict["default_env"] = default_env
        if default_user is not UNSET:
            field_dict["default_user"] = default_user
        if disk_mb is not UNSET:
            field_dict["disk_mb"] = disk_mb
        if healthcheck is not UNSET:
            field_dict["healthcheck"] = healthcheck
        if host_id is not UNSET:
            field_dict["host_id"] = host_id
        if labels is not UNSET:
            field_dict["labels"] = labels
        if logs is not UNSET:
            field_dict["logs"] = logs
        if reason is not UNSET:
            field_dict["reason"] = reason
        if retry_of is not UNSET:
            field_dict["retry_of"] = retry_of
        if sandbox_destroyed_at is not UNSET:
            field_dict["sandbox_destroyed_at"] = sandbox_destroyed_at
        if sandbox_id is not UNSET:
            field_dict["sandbox_id"] = sandbox_id
        if started_at is not UNSET:
            field_dict["started_at"] = started_at
        if template_id is not UNSET:
            field_dict["template_id"] = template_id

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.build_default_env import BuildDefaultEnv
        from ..models.build_labels import BuildLabels
        from ..models.build_links import BuildLinks
        from ..models.build_reason import BuildReason
        from ..models.cancel import Cancel
        from ..models.recipe_step import RecipeStep
        from ..models.step_entry import StepEntry

        d = dict(src_dict)
        attempt = d.pop("attempt")

        base_template = d.pop("base_template")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        current_step = d.pop("current_step")

        id = d.pop("id")

        lane = d.pop("lane")

        links = BuildLinks.from_dict(d.pop("links"))

        memory_mb = d.pop("memory_mb")

        name = d.pop("name")

        queued_at = datetime.datetime.fromisoformat(d.pop("queued_at"))

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

        requested_by = d.pop("requested_by")

        status = BuildStatus(d.pop("status"))

        tag = d.pop("tag")

        total_steps = d.pop("total_steps")

        vcpus = d.pop("vcpus")

        _cancel = d.pop("cancel", UNSET)
        cancel: Cancel | Unset
        if isinstance(_cancel, Unset):
            cancel = UNSET
        else:
            cancel = Cancel.from_dict(_cancel)

        _completed_at = d.pop("completed_at", UNSET)
        completed_at: datetime.datetime | Unset
        if isinstance(_completed_at, Unset):
            completed_at = UNSET
        else:
            completed_at = datetime.datetime.fromisoformat(_completed_at)

        context = d.pop("context", UNSET)

        _default_env = d.pop("default_env", UNSET)
        default_env: BuildDefaultEnv | Unset
        if isinstance(_default_env, Unset):
            default_env = UNSET
        else:
            default_env = BuildDefaultEnv.from_dict(_default_env)

        default_user = d.pop("default_user", UNSET)

        disk_mb = d.pop("disk_mb", UNSET)

        healthcheck = d.pop("healthcheck", UNSET)

        host_id = d.pop("host_id", UNSET)

        _labels = d.pop("labels", UNSET)
        labels: BuildLabels | Unset
        if isinstance(_labels, Unset):
            labels = UNSET
        else:
            labels = BuildLabels.from_dict(_labels)

        _logs = d.pop("logs", UNSET)
        logs: list[StepEntry] | Unset = UNSET
        if _logs is not UNSET:
            logs = []
            for logs_item_data in _logs:
                logs_item = StepEntry.from_dict(logs_item_data)

                logs.append(logs_item)

        _reason = d.pop("reason", UNSET)
        reason: BuildReason | Unset
        if isinstance(_reason, Unset):
            reason = UNSET
        else:
            reason = BuildReason.from_dict(_reason)

        retry_of = d.pop("retry_of", UNSET)

        _sandbox_destroyed_at = d.pop("sandbox_destroyed_at", UNSET)
        sandbox_destroyed_at: datetime.datetime | Unset
        if isinstance(_sandbox_destroyed_at, Unset):
            sandbox_destroyed_at = UNSET
        else:
            sandbox_destroyed_at = datetime.datetime.fromisoformat(
                _sandbox_destroyed_at
            )

        sandbox_id = d.pop("sandbox_id", UNSET)

        _started_at = d.pop("started_at", UNSET)
        started_at: datetime.datetime | Unset
        if isinstance(_started_at, Unset):
            started_at = UNSET
        else:
            started_at = datetime.datetime.fromisoformat(_started_at)

        template_id = d.pop("template_id", UNSET)

        build = cls(
            attempt=attempt,
            base_template=base_template,
            created_at=created_at,
            current_step=current_step,
            id=id,
            lane=lane,
            links=links,
            memory_mb=memory_mb,
            name=name,
            queued_at=queued_at,
            recipe=recipe,
            requested_by=requested_by,
            status=status,
            tag=tag,
            total_steps=total_steps,
            vcpus=vcpus,
            cancel=cancel,
            completed_at=completed_at,
            context=context,
            default_env=default_env,
            default_user=default_user,
            disk_mb=disk_mb,
            healthcheck=healthcheck,
            host_id=host_id,
            labels=labels,
            logs=logs,
            reason=reason,
            retry_of=retry_of,
            sandbox_destroyed_at=sandbox_destroyed_at,
            sandbox_id=sandbox_id,
            started_at=started_at,
            template_id=template_id,
        )

        build.additional_properties = d
        return build

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
