from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...models.tag_entry import TagEntry
from ...models.tag_set import TagSet
from ...types import Response


def _get_kwargs(
    name: str,
    tag: str,
    *,
    body: TagSet,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "put",
        "url": "/v1/admin/templates/{name}/tags/{tag}".format(
            name=quote(str(name), safe=""),
            tag=quote(str(tag), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Error | TagEntry | None:
    if response.status_code == 200:
        response_200 = TagEntry.from_dict(response.json())

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
) -> Response[Error | TagEntry]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    name: str,
    tag: str,
    *,
    client: AuthenticatedClient,
    body: TagSet,
) -> Response[Error | TagEntry]:
    """Set or move a tag

     Points the tag to a template of this name, a newer or an older one. Builds and sandboxes that name
    the
    tag start from there from then on; what runs is not touched. Moves of one tag are done one after the
    other. Repeating it changes nothing.

    Args:
        name (str):
        tag (str):
        body (TagSet): Where a tag is to point. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | TagEntry]
    """

    kwargs = _get_kwargs(
        name=name,
        tag=tag,
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    name: str,
    tag: str,
    *,
    client: AuthenticatedClient,
    body: TagSet,
) -> Error | TagEntry | None:
    """Set or move a tag

     Points the tag to a template of this name, a newer or an older one. Builds and sandboxes that name
    the
    tag start from there from then on; what runs is not touched. Moves of one tag are done one after the
    other. Repeating it changes nothing.

    Args:
        name (str):
        tag (str):
        body (TagSet): Where a tag is to point. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | TagEntry
    """

    return sync_detailed(
        name=name,
        tag=tag,
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    name: str,
    tag: str,
    *,
    client: AuthenticatedClient,
    body: TagSet,
) -> Response[Error | TagEntry]:
    """Set or move a tag

     Points the tag to a template of this name, a newer or an older one. Builds and sandboxes that name
    the
    tag start from there from then on; what runs is not touched. Moves of one tag are done one after the
    other. Repeating it changes nothing.

    Args:
        name (str):
        tag (str):
        body (TagSet): Where a tag is to point. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | TagEntry]
    """

    kwargs = _get_kwargs(
        name=name,
        tag=tag,
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    name: str,
    tag: str,
    *,
    client: AuthenticatedClient,
    body: TagSet,
) -> Error | TagEntry | None:
    """Set or move a tag

     Points the tag to a template of this name, a newer or an older one. Builds and sandboxes that name
    the
    tag start from there from then on; what runs is not touched. Moves of one tag are done one after the
    other. Repeating it changes nothing.

    Args:
        name (str):
        tag (str):
        body (TagSet): Where a tag is to point. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | TagEntry
    """

    return (
        await asyncio_detailed(
            name=name,
            tag=tag,
            client=client,
            body=body,
        )
    ).parsed
