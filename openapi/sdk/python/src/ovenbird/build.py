"""Waiting for a build."""

import time

import httpx

from .errors import Late, passes, refusal
from .rest import AuthenticatedClient
from .rest.models import Build, BuildStatus

_OVER = (BuildStatus.SUCCEEDED, BuildStatus.FAILED, BuildStatus.CANCELLED)
# Between two looks, at first and at most, in seconds.
_PAUSES = (0.2, 2.0)


def build_end(client: AuthenticatedClient, build_id: str, within: float = 600.0) -> Build:
    """The build once it has succeeded, failed or been cancelled; `Late` when it has not within so many seconds."""
    deadline = time.monotonic() + within
    pause = _PAUSES[0]
    while True:
        try:
            answer = client.get_httpx_client().get(f"/v1/admin/builds/{build_id}")
            if answer.is_success:
                build = Build.from_dict(answer.json())
                if build.status in _OVER:
                    return build
            elif not passes(answer.status_code):
                raise refusal(answer)
        except httpx.TransportError:
            pass  # The next look may find the API again; the deadline ends it.
        if time.monotonic() + pause > deadline:
            raise Late(f"build {build_id} did not end within {within:g} s")
        time.sleep(pause)
        pause = min(pause * 2, _PAUSES[1])
