"""What can go wrong beside the errors of single operations, which they return."""

import httpx


class OvenbirdError(Exception):
    """Every error of this package's own."""


class Refused(OvenbirdError):
    """The API refused, and would again."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


class Unreachable(OvenbirdError):
    """The API did not answer, or broke off, too many times in a row."""


class Late(OvenbirdError):
    """The build did not end in time."""


def passes(status: int) -> bool:
    """Whether another try may be answered otherwise."""
    return status in (408, 429) or status >= 500


def refusal(response: httpx.Response) -> Refused:
    """The error of a response that has been read."""
    try:
        error = response.json()["error"]
        return Refused(response.status_code, error["code"], error["message"])
    except (ValueError, KeyError, TypeError):
        return Refused(response.status_code, "unknown", response.text[:200])
