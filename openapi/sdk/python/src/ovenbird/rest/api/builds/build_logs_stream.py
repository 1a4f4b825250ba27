from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    *,
    from_seq: int | Unset = 1,
    last_event_id: int | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(last_event_id, Unset):
        headers["Last-Event-ID"] = str(last_event_id)

    params: dict[str, Any] = {}

    params["from_seq"] = from_seq

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/builds/{id}/logs/stream".format(
            id=quote(str(id), safe=""),
        ),
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Any | Error | str | None:
    if response.status_code == 200:
        response_200 = response.text
        return response_200

    if response.status_code == 204:
        response_204 = cast(Any, None)
        return response_204

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
) -> Response[Any | Error | str]:
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
    last_event_id: int | Unset = UNSET,
) -> Response[Any | Error | str]:
    """Follow a build's log

     Server-sent events: what is written already, then every line as it is written, without gap or
    duplicate, up to the end. To go on after a broken connection, send the last `id` as
    `Last-Event-ID`, as a browser's `EventSource` does by itself; it wins over `from_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        last_event_id (int | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error | str]
    """

    kwargs = _get_kwargs(
        id=id,
        from_seq=from_seq,
        last_event_id=last_event_id,
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
    last_event_id: int | Unset = UNSET,
) -> Any | Error | str | None:
    """Follow a build's log

     Server-sent events: what is written already, then every line as it is written, without gap or
    duplicate, up to the end. To go on after a broken connection, send the last `id` as
    `Last-Event-ID`, as a browser's `EventSource` does by itself; it wins over `from_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        last_event_id (int | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Error | str
    """

    return sync_detailed(
        id=id,
        client=client,
        from_seq=from_seq,
        last_event_id=last_event_id,
    ).parsed


async def asyncio_detailed(
    id: str,
    *,
    client: AuthenticatedClient,
    from_seq: int | Unset = 1,
    last_event_id: int | Unset = UNSET,
) -> Response[Any | Error | str]:
    """Follow a build's log

     Server-sent events: what is written already, then every line as it is written, without gap or
    duplicate, up to the end. To go on after a broken connection, send the last `id` as
    `Last-Event-ID`, as a browser's `EventSource` does by itself; it wins over `from_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        last_event_id (int | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error | str]
    """

    kwargs = _get_kwargs(
        id=id,
        from_seq=from_seq,
        last_event_id=last_event_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    id: str,
    *,
    client: AuthenticatedClient,
    from_seq: int | Unset = 1,
    last_event_id: int | Unset = UNSET,
) -> Any | Error | str | None:
    """Follow a build's log

     Server-sent events: what is written already, then every line as it is written, without gap or
    duplicate, up to the end. To go on after a broken connection, send the last `id` as
    `Last-Event-ID`, as a browser's `EventSource` does by itself; it wins over `from_seq`.

    Args:
        id (str):
        from_seq (int | Unset):  Default: 1.
        last_event_id (int | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Error | str
    """

    return (
        await asyncio_detailed(
            id=id,
            client=client,
            from_seq=from_seq,
            last_event_id=last_event_id,
        )
    ).parsed
