from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.context import Context
from ...models.error import Error
from ...types import File, Response


def _get_kwargs(
    sha256: str,
    *,
    body: File,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "put",
        "url": "/v1/admin/contexts/{sha256}".format(
            sha256=quote(str(sha256), safe=""),
        ),
    }

    _kwargs["content"] = body.payload
    headers["Content-Type"] = "application/octet-stream"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Context | Error | None:
    if response.status_code == 200:
        response_200 = Context.from_dict(response.json())

        return response_200

    if response.status_code == 201:
        response_201 = Context.from_dict(response.json())

        return response_201

    if response.status_code == 400:
        response_400 = Error.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Error.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Error.from_dict(response.json())

        return response_403

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
) -> Response[Context | Error]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    sha256: str,
    *,
    client: AuthenticatedClient,
    body: File,
) -> Response[Context | Error]:
    """Upload a context

     Streams an archive (tar, tar.gz or zip) that `COPY` can take from: the request's body is the file,
    and its path
    the file's sha256. It is stored whole or not at all, once. All of it is read and checked first;
    `details` names
    the entry that is not accepted. Ask with `HEAD` before: what is there need not be sent.

    Args:
        sha256 (str):
        body (File):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Context | Error]
    """

    kwargs = _get_kwargs(
        sha256=sha256,
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    sha256: str,
    *,
    client: AuthenticatedClient,
    body: File,
) -> Context | Error | None:
    """Upload a context

     Streams an archive (tar, tar.gz or zip) that `COPY` can take from: the request's body is the file,
    and its path
    the file's sha256. It is stored whole or not at all, once. All of it is read and checked first;
    `details` names
    the entry that is not accepted. Ask with `HEAD` before: what is there need not be sent.

    Args:
        sha256 (str):
        body (File):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Context | Error
    """

    return sync_detailed(
        sha256=sha256,
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    sha256: str,
    *,
    client: AuthenticatedClient,
    body: File,
) -> Response[Context | Error]:
    """Upload a context

     Streams an archive (tar, tar.gz or zip) that `COPY` can take from: the request's body is the file,
    and its path
    the file's sha256. It is stored whole or not at all, once. All of it is read and checked first;
    `details` names
    the entry that is not accepted. Ask with `HEAD` before: what is there need not be sent.

    Args:
        sha256 (str):
        body (File):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Context | Error]
    """

    kwargs = _get_kwargs(
        sha256=sha256,
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    sha256: str,
    *,
    client: AuthenticatedClient,
    body: File,
) -> Context | Error | None:
    """Upload a context

     Streams an archive (tar, tar.gz or zip) that `COPY` can take from: the request's body is the file,
    and its path
    the file's sha256. It is stored whole or not at all, once. All of it is read and checked first;
    `details` names
    the entry that is not accepted. Ask with `HEAD` before: what is there need not be sent.

    Args:
        sha256 (str):
        body (File):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Context | Error
    """

    return (
        await asyncio_detailed(
            sha256=sha256,
            client=client,
            body=body,
        )
    ).parsed
