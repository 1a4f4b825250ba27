from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error import Error
from ...models.host_certificate import HostCertificate
from ...models.host_renew import HostRenew
from ...types import Response


def _get_kwargs(
    *,
    body: HostRenew,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/hosts/renew",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Error | HostCertificate | None:
    if response.status_code == 200:
        response_200 = HostCertificate.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = Error.from_dict(response.json())

        return response_400

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
) -> Response[Error | HostCertificate]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: HostRenew,
) -> Response[Error | HostCertificate]:
    """Renew an agent's certificate

     Called by the agent, without an API key: the signature of the request shows that it has the key that
    it
    registered with. Not for a host that was deleted, nor once the certificate has ended; such an agent
    registers
    again, with another token.

    Args:
        body (HostRenew): What an agent renews with. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | HostCertificate]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: HostRenew,
) -> Error | HostCertificate | None:
    """Renew an agent's certificate

     Called by the agent, without an API key: the signature of the request shows that it has the key that
    it
    registered with. Not for a host that was deleted, nor once the certificate has ended; such an agent
    registers
    again, with another token.

    Args:
        body (HostRenew): What an agent renews with. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | HostCertificate
    """

    return sync_detailed(
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: HostRenew,
) -> Response[Error | HostCertificate]:
    """Renew an agent's certificate

     Called by the agent, without an API key: the signature of the request shows that it has the key that
    it
    registered with. Not for a host that was deleted, nor once the certificate has ended; such an agent
    registers
    again, with another token.

    Args:
        body (HostRenew): What an agent renews with. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Error | HostCertificate]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: HostRenew,
) -> Error | HostCertificate | None:
    """Renew an agent's certificate

     Called by the agent, without an API key: the signature of the request shows that it has the key that
    it
    registered with. Not for a host that was deleted, nor once the certificate has ended; such an agent
    registers
    again, with another token.

    Args:
        body (HostRenew): What an agent renews with. Unknown fields are refused.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Error | HostCertificate
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
        )
    ).parsed
