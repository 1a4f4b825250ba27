from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...models.sandbox import Sandbox
from ...models.sandbox_save import SandboxSave
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    *,
    body: SandboxSave,
    idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(idempotency_key, Unset):
        headers["Idempotency-Key"] = idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/sandboxes/{id}/snapshot".format(
            id=quote(str(id), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Error | Sandbox | None:
    if response.status_code == 200:
        response_200 = Sandbox.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = Error.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Error.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Error.from_dict(response.json())

        return response_403

    if response.status_code == 404:
        response_404 = Error.from_dict(response.json())

        return response_404

    if response.status_code == 408:
        response_408 = Error.from_dict(response.json())

        return response_408

    if response.status_code == 409:
        response_409 = Error.from_dict(response.json())

        return response_409

    if response.status_code == 413:
        response_413 = Error.from_dict(response.json())

        return response_413

    if response.status_code == 415:
        response_415 = Error.from_dict(response.json())

        return response_415

    if response.status_code == 422:
        response_422 = Error.from_dict(response.json())

        return response_422

    if response.status_code == 429:
        response_429 = Error.from_dict(response.json())

        return response_429

    if response.status_code == 500:
        response_500 = Error.from_dict(response.json())

        return response_500

    if response.status_code == 503:
        response_503 = Error.from_dict(response.json())

        return response_503

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Error | Sandbox]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    id: str,
    *,
    client: AuthenticatedClient,
    body: SandboxSave,
    idempotency_key: str | Unset = UNSET,
) -> Response[Error | Sandbox]:
    """Make a template of a sandbox

     Stores memory and disk as a snapshot template, and ends the sandbox: it is `destroyed` then, and
    `snapshot`
    names the template. When it takes longer than a minute the answer says `saving`; get the sandbox to
    learn its end.
    Which names a key of scope `build` takes is as for a build.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (SandboxSave): What a sandbox becomes.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | Sandbox]
    """

    kwargs = _get_kwargs(
        id=id,
        body=body,
        idempotency_key=idempotency_key,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    id: str,
    *,
    client: AuthenticatedClient,
    body: SandboxSave,
    idempotency_key: str | Unset = UNSET,
) -> Error | Sandbox | None:
    """Make a template of a sandbox

     Stores memory and disk as a snapshot template, and ends the sandbox: it is `destroyed` then, and
    `snapshot`
    names the template. When it takes longer than a minute the answer says `saving`; get the sandbox to
    learn its end.
    Which names a key of scope `build` takes is as for a build.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (SandboxSave): What a sandbox becomes.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | Sandbox
    """

    return sync_detailed(
        id=id,
        client=client,
        body=body,
        idempotency_key=idempotency_key,
    ).parsed


async def asyncio_detailed(
    id: str,
    *,
    client: AuthenticatedClient,
    body: SandboxSave,
    idempotency_key: str | Unset = UNSET,
) -> Response[Error | Sandbox]:
    """Make a template of a sandbox

     Stores memory and disk as a snapshot template, and ends the sandbox: it is `destroyed` then, and
    `snapshot`
    names the template. When it takes longer than a minute the answer says `saving`; get the sandbox to
    learn its end.
    Which names a key of scope `build` takes is as for a build.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (SandboxSave): What a sandbox becomes.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | Sandbox]
    """

    kwargs = _get_kwargs(
        id=id,
        body=body,
        idempotency_key=idempotency_key,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    id: str,
    *,
    client: AuthenticatedClient,
    body: SandboxSave,
    idempotency_key: str | Unset = UNSET,
) -> Error | Sandbox | None:
    """Make a template of a sandbox

     Stores memory and disk as a snapshot template, and ends the sandbox: it is `destroyed` then, and
    `snapshot`
    names the template. When it takes longer than a minute the answer says `saving`; get the sandbox to
    learn its end.
    Which names a key of scope `build` takes is as for a build.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (SandboxSave): What a sandbox becomes.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | Sandbox
    """

    return (
        await asyncio_detailed(
            id=id,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
        )
    ).parsed
