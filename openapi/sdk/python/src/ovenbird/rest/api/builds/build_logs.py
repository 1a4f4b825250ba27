from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...models.log_page import LogPage
from ...models.log_stream import LogStream
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    *,
    from_seq: int | Unset = 1,
    limit: int | Unset = 1000,
    step: int | Unset = UNSET,
    stream: LogStream | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["from_seq"] = from_seq

    params["limit"] = limit

    params["step"] = step

    json_stream: str | Unset = UNSET
    if not isinstance(stream, Unset):
        json_stream = stream.value

    params["stream"] = json_stream

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/builds/{id}/logs".format(
            id=quote(str(id), safe=""),
        ),
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Error | LogPage | None:
    if response.status_code == 200:
        response_200 = LogPage.from_dict(response.json())

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
) -> Response[Error | LogPage]:
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
    from_seq: int | Unset = 1,
    limit: int | Unset = 1000,
    step: int | Unset = UNSET,
    stream: LogStream | Unset = UNSET,
) -> Response[Error | LogPage]:
    """Read a build's log

     A page from `from_seq` on, as far as the log is written and can be read now. A page may hold fewer
    records than asked
    for, or none where a filter hides many: go on at `next_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        limit (int | Unset):  Default: 1000.
        step (int | Unset):
        stream (LogStream | Unset): Where a line came from.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | LogPage]
    """

    kwargs = _get_kwargs(
        id=id,
        from_seq=from_seq,
        limit=limit,
        step=step,
        stream=stream,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    id: str,
    *,
    client: AuthenticatedClient,
    from_seq: int | Unset = 1,
    limit: int | Unset = 1000,
    step: int | Unset = UNSET,
    stream: LogStream | Unset = UNSET,
) -> Error | LogPage | None:
    """Read a build's log

     A page from `from_seq` on, as far as the log is written and can be read now. A page may hold fewer
    records than asked
    for, or none where a filter hides many: go on at `next_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        limit (int | Unset):  Default: 1000.
        step (int | Unset):
        stream (LogStream | Unset): Where a line came from.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | LogPage
    """

    return sync_detailed(
        id=id,
        client=client,
        from_seq=from_seq,
        limit=limit,
        step=step,
        stream=stream,
    ).parsed


async def asyncio_detailed(
    id: str,
    *,
    client: AuthenticatedClient,
    from_seq: int | Unset = 1,
    limit: int | Unset = 1000,
    step: int | Unset = UNSET,
    stream: LogStream | Unset = UNSET,
) -> Response[Error | LogPage]:
    """Read a build's log

     A page from `from_seq` on, as far as the log is written and can be read now. A page may hold fewer
    records than asked
    for, or none where a filter hides many: go on at `next_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        limit (int | Unset):  Default: 1000.
        step (int | Unset):
        stream (LogStream | Unset): Where a line came from.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | LogPage]
    """

    kwargs = _get_kwargs(
        id=id,
        from_seq=from_seq,
        limit=limit,
        step=step,
        stream=stream,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    id: str,
    *,
    client: AuthenticatedClient,
    from_seq: int | Unset = 1,
    limit: int | Unset = 1000,
    step: int | Unset = UNSET,
    stream: LogStream | Unset = UNSET,
) -> Error | LogPage | None:
    """Read a build's log

     A page from `from_seq` on, as far as the log is written and can be read now. A page may hold fewer
    records than asked
    for, or none where a filter hides many: go on at `next_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        limit (int | Unset):  Default: 1000.
        step (int | Unset):
        stream (LogStream | Unset): Where a line came from.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | LogPage
    """

    return (
        await asyncio_detailed(
            id=id,
            client=client,
            from_seq=from_seq,
            limit=limit,
            step=step,
            stream=stream,
        )
    ).parsed
