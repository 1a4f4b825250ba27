from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.build import Build
from ...models.build_cancel import BuildCancel
from ...models.error import Error
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    *,
    body: BuildCancel | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(idempotency_key, Unset):
        headers["Idempotency-Key"] = idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/admin/builds/{id}/cancel".format(
            id=quote(str(id), safe=""),
        ),
    }

    if not isinstance(body, Unset):
        _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Build | Error | None:
    if response.status_code == 200:
        response_200 = Build.from_dict(response.json())

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
) -> Response[Build | Error]:
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
    body: BuildCancel | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Response[Build | Error]:
    """Cancel a build

     A queued build is `cancelled` at once. A running one is `cancelling` until its command is killed and
    its
    sandbox destroyed; then it is `cancelled`, with `sandbox_destroyed_at`. Nothing is published after
    this
    answer, and the build never ends otherwise. While the host does not answer the build stays
    `cancelling`, and `reason` says so. Repeating it changes nothing: who cancelled first, and why,
    stays.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (BuildCancel | Unset): Why a build is cancelled.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Build | Error]
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
    body: BuildCancel | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Build | Error | None:
    """Cancel a build

     A queued build is `cancelled` at once. A running one is `cancelling` until its command is killed and
    its
    sandbox destroyed; then it is `cancelled`, with `sandbox_destroyed_at`. Nothing is published after
    this
    answer, and the build never ends otherwise. While the host does not answer the build stays
    `cancelling`, and `reason` says so. Repeating it changes nothing: who cancelled first, and why,
    stays.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (BuildCancel | Unset): Why a build is cancelled.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Build | Error
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
    body: BuildCancel | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Response[Build | Error]:
    """Cancel a build

     A queued build is `cancelled` at once. A running one is `cancelling` until its command is killed and
    its
    sandbox destroyed; then it is `cancelled`, with `sandbox_destroyed_at`. Nothing is published after
    this
    answer, and the build never ends otherwise. While the host does not answer the build stays
    `cancelling`, and `reason` says so. Repeating it changes nothing: who cancelled first, and why,
    stays.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (BuildCancel | Unset): Why a build is cancelled.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Build | Error]
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
    body: BuildCancel | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Build | Error | None:
    """Cancel a build

     A queued build is `cancelled` at once. A running one is `cancelling` until its command is killed and
    its
    sandbox destroyed; then it is `cancelled`, with `sandbox_destroyed_at`. Nothing is published after
    this
    answer, and the build never ends otherwise. While the host does not answer the build stays
    `cancelling`, and `reason` says so. Repeating it changes nothing: who cancelled first, and why,
    stays.

    Args:
        id (str):
        idempotency_key (str | Unset):
        body (BuildCancel | Unset): Why a build is cancelled.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Build | Error
    """

    return (
        await asyncio_detailed(
            id=id,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
        )
    ).parsed
