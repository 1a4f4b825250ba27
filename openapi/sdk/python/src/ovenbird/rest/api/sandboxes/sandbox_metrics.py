from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...models.metrics_range import MetricsRange
from ...models.sandbox_metrics import SandboxMetrics
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    *,
    range_: MetricsRange | Unset = MetricsRange.VALUE_0,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    json_range_: str | Unset = UNSET
    if not isinstance(range_, Unset):
        json_range_ = range_.value

    params["range"] = json_range_

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/sandboxes/{id}/metrics".format(
            id=quote(str(id), safe=""),
        ),
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Error | SandboxMetrics | None:
    if response.status_code == 200:
        response_200 = SandboxMetrics.from_dict(response.json())

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
) -> Response[Error | SandboxMetrics]:
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
    range_: MetricsRange | Unset = MetricsRange.VALUE_0,
) -> Response[Error | SandboxMetrics]:
    """Read a sandbox's metrics

     Processor, memory and disk, measured by its host. Asking is no use of the sandbox. Of one that is
    over: what it
    used last.

    Args:
        id (str):
        range_ (MetricsRange | Unset): How far back metrics go. Default: MetricsRange.VALUE_0.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | SandboxMetrics]
    """

    kwargs = _get_kwargs(
        id=id,
        range_=range_,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    id: str,
    *,
    client: AuthenticatedClient,
    range_: MetricsRange | Unset = MetricsRange.VALUE_0,
) -> Error | SandboxMetrics | None:
    """Read a sandbox's metrics

     Processor, memory and disk, measured by its host. Asking is no use of the sandbox. Of one that is
    over: what it
    used last.

    Args:
        id (str):
        range_ (MetricsRange | Unset): How far back metrics go. Default: MetricsRange.VALUE_0.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | SandboxMetrics
    """

    return sync_detailed(
        id=id,
        client=client,
        range_=range_,
    ).parsed


async def asyncio_detailed(
    id: str,
    *,
    client: AuthenticatedClient,
    range_: MetricsRange | Unset = MetricsRange.VALUE_0,
) -> Response[Error | SandboxMetrics]:
    """Read a sandbox's metrics

     Processor, memory and disk, measured by its host. Asking is no use of the sandbox. Of one that is
    over: what it
    used last.

    Args:
        id (str):
        range_ (MetricsRange | Unset): How far back metrics go. Default: MetricsRange.VALUE_0.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | SandboxMetrics]
    """

    kwargs = _get_kwargs(
        id=id,
        range_=range_,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    id: str,
    *,
    client: AuthenticatedClient,
    range_: MetricsRange | Unset = MetricsRange.VALUE_0,
) -> Error | SandboxMetrics | None:
    """Read a sandbox's metrics

     Processor, memory and disk, measured by its host. Asking is no use of the sandbox. Of one that is
    over: what it
    used last.

    Args:
        id (str):
        range_ (MetricsRange | Unset): How far back metrics go. Default: MetricsRange.VALUE_0.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | SandboxMetrics
    """

    return (
        await asyncio_detailed(
            id=id,
            client=client,
            range_=range_,
        )
    ).parsed
