from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="RecipeStep")


@_attrs_define
class RecipeStep:
    """A step as an object. Which fields a step takes depends on its type.

    Attributes:
        type_ (str): `RUN`, `START`, `ENV`, `WORKDIR`, `USER` or `COPY`.
        args (list[str] | Unset): What it works on. Those of `RUN` and `START` are joined by a blank.
        chown (str | Unset): `COPY`: `user:group` of what is copied, names or numbers; root's when absent.
        retries (int | Unset): `RUN`: tries after the first one failed.
        secret (list[str] | Unset): `RUN`: the names of secrets. Not available yet.
        sudo (bool | Unset): `USER`: may become root without a password.
        timeout (str | Unset): `RUN`: the time of one try, such as `5m`.
    """

    type_: str
    args: list[str] | Unset = UNSET
    chown: str | Unset = UNSET
    retries: int | Unset = UNSET
    secret: list[str] | Unset = UNSET
    sudo: bool | Unset = UNSET
    timeout: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        type_ = self.type_

        args: list[str] | Unset = UNSET
        if not isinstance(self.args, Unset):
            args = self.args

        chown = self.chown

        retries = self.retries

        secret: list[str] | Unset = UNSET
        if not isinstance(self.secret, Unset):
            secret = self.secret

        sudo = self.sudo

        timeout = self.timeout

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "type": type_,
            }
        )
        if args is not UNSET:
            field_dict["args"] = args
        if chown is not UNSET:
            field_dict["chown"] = chown
        if retries is not UNSET:
            field_dict["retries"] = retries
        if secret is not UNSET:
            field_dict["secret"] = secret
        if sudo is not UNSET:
            field_dict["sudo"] = sudo
        if timeout is not UNSET:
            field_dict["timeout"] = timeout

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        type_ = d.pop("type")

        args = cast(list[str], d.pop("args", UNSET))

        chown = d.pop("chown", UNSET)

        retries = d.pop("retries", UNSET)

        secret = cast(list[str], d.pop("secret", UNSET))

        sudo = d.pop("sudo", UNSET)

        timeout = d.pop("timeout", UNSET)

        recipe_step = cls(
            type_=type_,
            args=args,
            chown=chown,
            retries=retries,
            secret=secret,
            sudo=sudo,
            timeout=timeout,
        )

        return recipe_step
