"""Following a log over server-sent events, through broken connections."""

import json
import time
from collections.abc import Iterator

import httpx
from httpx_sse import SSEError, connect_sse

from .errors import Unreachable, passes, refusal
from .rest import AuthenticatedClient
from .rest.models import LogRecord

# Tries in a row without a record.
_TRIES_MAX = 10
# Between two tries, at first and at most, in seconds.
_PAUSES = (0.2, 5.0)


def follow(client: AuthenticatedClient, build_id: str, after: int = 0) -> Iterator[LogRecord]:
    """A build's log after the record `after` as it is written: each record once, in order, up to the one with `end`.

    Raises `Refused` when the key may not read this log, `Unreachable` after ten tries in a row without a record.
    """
    tries = 0
    while True:
        broken = "the stream ended before the log"
        try:
            for record in _stream(client, build_id, after):
                if record is None:
                    return
                after, tries = record.seq, 0
                yield record
                if record.end:
                    return
        except _Broken as error:
            broken = str(error)
        tries += 1
        if tries == _TRIES_MAX:
            raise Unreachable(f"the log could not be read in {tries} tries: {broken}")
        time.sleep(min(_PAUSES[0] * 2 ** (tries - 1), _PAUSES[1]))


class _Broken(Exception):
    """The connection, but not the log, is over."""


def _stream(client: AuthenticatedClient, build_id: str, after: int) -> Iterator[LogRecord | None]:
    """Records of one connection; `None` where the log has ended before."""
    path = f"/v1/admin/builds/{build_id}/logs/stream"
    headers = {"Last-Event-ID": str(after)}
    try:
        with connect_sse(client.get_httpx_client(), "GET", path, headers=headers) as source:
            response = source.response
            if response.status_code == httpx.codes.NO_CONTENT:
                yield None
                return
            if not response.is_success:
                response.read()
                error = refusal(response)
                raise _Broken(str(error)) if passes(response.status_code) else error
            for event in source.iter_sse():
                if event.event == "error":
                    raise _Broken(event.data)
                # One without data only says when to come back.
                if event.data:
                    yield LogRecord.from_dict(json.loads(event.data))
    except (httpx.TransportError, SSEError) as error:
        raise _Broken(repr(error)) from error
