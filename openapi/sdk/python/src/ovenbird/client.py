"""The client of the REST API with an API key."""

import httpx

from .rest import AuthenticatedClient

# A server that is there answers within the first; a silent log sends a comment more often than the second.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


def connect(url: str, key: str) -> AuthenticatedClient:
    """A client of the API at `url` with an API key."""
    return AuthenticatedClient(base_url=url.rstrip("/"), token=key, timeout=_TIMEOUT)
