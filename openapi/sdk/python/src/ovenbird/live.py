"""Following a log over NATS: what was before comes from REST, and both are joined by `seq`.

Subscribe, read REST until a page is empty, then take what NATS tells. Read REST again whenever a `seq` is missing, or
when nothing came for a while: NATS tells a subscriber only what comes after its subscription, and keeps nothing for one
that was away. What REST leaves out is lost, and the log goes on after it. Needs the extra `ovenbird[nats]`.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator

import httpx
import nats
from nats.aio.client import Client as NatsClient
from nats.errors import TimeoutError as NatsTimeoutError

from .errors import Unreachable, passes, refusal
from .rest import AuthenticatedClient
from .rest.models import LogRecord

# The last message may be lost with its connection: so silence is not trusted for more than this, in seconds.
_SILENCE_MAX = 3.0
_PAUSE = 0.2
# Failed or fruitless reads in a row.
_TRIES_MAX = 20


async def connect(url: str, key: str) -> NatsClient:
    """A connection to NATS with an API key."""
    return await nats.connect(url, token=key)


async def follow(
    client: AuthenticatedClient, connection: NatsClient, build_id: str, after: int = 0
) -> AsyncIterator[LogRecord]:
    """A build's log after the record `after` as it is written: each record once, in order, up to the one with `end`. A
    record whose `seq` is not the next one comes after records that are lost; where the last line is, the end has its
    `seq`. There is nothing, and no `end`, where the log has ended at `after`.

    Raises `Refused` when the key may not read this log, `Unreachable` when REST does not answer.
    """
    subscription = await connection.subscribe(f"ovenbird.logs.{build_id}")
    try:
        await connection.flush()
        waiting: deque[LogRecord] = deque()
        began = after
        is_behind, is_stored, tries = True, False, 0
        while True:
            if waiting:
                record = waiting.popleft()
                # What is stored has a hole only where records are lost.
                if record.seq == after + 1 or (is_stored and record.seq > after):
                    after, tries = record.seq, 0
                    yield record
                    if record.end:
                        return
                elif record.seq > after:
                    # What is dropped here REST tells again.
                    waiting.clear()
                    is_behind = True
                    tries = _count(tries, f"record {after + 1} is missing")
                elif is_stored and record.end:
                    # The log has ended here: who came from here has its end, others a line in its place, which is lost.
                    if after > began:
                        yield record
                    return
            elif is_behind:
                try:
                    records = await _page(client, build_id, after)
                except httpx.TransportError as error:
                    tries = _count(tries, repr(error))
                    await asyncio.sleep(_PAUSE)
                    continue
                waiting.extend(records)
                is_behind = is_stored = bool(records)
                if tries and not records:
                    # The missing record is on its way to where REST reads.
                    await asyncio.sleep(_PAUSE)
            else:
                try:
                    message = await subscription.next_msg(timeout=_SILENCE_MAX)
                except NatsTimeoutError:
                    is_behind = True
                    continue
                is_stored = False
                waiting.extend(map(LogRecord.from_dict, json.loads(message.data)["records"]))
    finally:
        if not connection.is_closed:
            await subscription.unsubscribe()


async def _page(client: AuthenticatedClient, build_id: str, after: int) -> list[LogRecord]:
    """The records after `after`, and the one of this number if it ends the log."""
    records = await _records(client, build_id, from_seq=max(after, 1))
    if not records and after:
        # It may have ended before this number.
        records = await _records(client, build_id, from_seq=after + 1)
    return [record for record in records if record.seq > after or record.end]


async def _records(client: AuthenticatedClient, build_id: str, from_seq: int) -> list[LogRecord]:
    answer = await client.get_async_httpx_client().get(
        f"/v1/admin/builds/{build_id}/logs", params={"from_seq": from_seq}
    )
    if passes(answer.status_code):
        raise httpx.TransportError(str(refusal(answer)))
    if not answer.is_success:
        raise refusal(answer)
    return [LogRecord.from_dict(record) for record in answer.json()["records"]]


def _count(tries: int, last: str) -> int:
    if tries + 1 == _TRIES_MAX:
        raise Unreachable(f"the log could not be read in {_TRIES_MAX} tries: {last}")
    return tries + 1
