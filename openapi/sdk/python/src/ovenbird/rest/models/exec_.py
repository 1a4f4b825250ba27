from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.exec_env import ExecEnv


T = TypeVar("T", bound="Exec")


@_attrs_define
class Exec:
    """A command: either a script or a program with its arguments. Unknown fields are refused.

    Attributes:
        command (list[str] | Unset): A program, searched in `PATH`, and its arguments.
        env (ExecEnv | Unset): Environment, over the template's.
        script (str | Unset): Text for `/bin/sh -c`.
        timeout_sec (int | Unset): It is killed with its children after so many seconds. At most 100 for a command that
            is waited for, and 3600 for
            one that is followed. Default: 30.
        user (str | Unset): A user of the sandbox; the template's, or root, when absent.
        workdir (str | Unset): An absolute path that exists; `/` when absent.
    """

    command: list[str] | Unset = UNSET
    env: ExecEnv | Unset = UNSET
    script: str | Unset = UNSET
    timeout_sec: int | Unset = 30
    user: str | Unset = UNSET
    workdir: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        command: list[str] | Unset = UNSET
        if not isinstance(self.command, Unset):
            command = self.command

        env: dict[str, Any] | Unset = UNSET
        if not isinstance(self.env, Unset):
            env = self.env.to_dict()

        script = self.script

        timeout_sec = self.timeout_sec

        user = self.user

        workdir = self.workdir

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if command is not UNSET:
            field_dict["command"] = command
        if env is not UNSET:
            field_dict["env"] = env
        if script is not UNSET:
            field_dict["script"] = script
        if timeout_sec is not UNSET:
            field_dict["timeout_sec"] = timeout_sec
        if user is not UNSET:
            field_dict["user"] = user
        if workdir is not UNSET:
            field_dict["workdir"] = workdir

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.exec_env import ExecEnv

        d = dict(src_dict)
        command = cast(list[str], d.pop("command", UNSET))

        _env = d.pop("env", UNSET)
        env: ExecEnv | Unset
        if isinstance(_env, Unset):
            env = UNSET
        else:
            env = ExecEnv.from_dict(_env)

        script = d.pop("script", UNSET)

        timeout_sec = d.pop("timeout_sec", UNSET)

        user = d.pop("user", UNSET)

        workdir = d.pop("workdir", UNSET)

        exec_ = cls(
            command=command,
            env=env,
            script=script,
            timeout_sec=timeout_sec,
            user=user,
            workdir=workdir,
        )

        return exec_
