"""The SDK against a real platform, which `api/dev/tests/dev/sdk` starts.

Where everything is comes in the environment: OVENBIRD_URL, OVENBIRD_KEY, OVENBIRD_NATS, OVENBIRD_CUT_URL, the same API
behind a line that breaks again and again, and OVENBIRD_LOST, a build that is over and has lost some records.
"""

import asyncio
import os
from io import BytesIO

import ovenbird
from ovenbird import live
from ovenbird.rest.api.builds import build_create, build_get
from ovenbird.rest.api.sandboxes import (
    sandbox_create,
    sandbox_delete,
    sandbox_exec,
    sandbox_file_read,
    sandbox_file_write,
)
from ovenbird.rest.api.templates import template_list
from ovenbird.rest.models import (
    Build,
    BuildCreate,
    BuildStatus,
    Error,
    Exec,
    ExecResult,
    LogRecord,
    Sandbox,
    SandboxCreate,
    SandboxStatus,
    TemplateList,
)
from ovenbird.rest.types import File

LINES = 3000
URL, CUT_URL, NATS, KEY, LOST = (
    os.environ[f"OVENBIRD_{name}"] for name in ("URL", "CUT_URL", "NATS", "KEY", "LOST")
)


def recipe_becomes_a_template_while_its_log_is_followed(client: ovenbird.rest.AuthenticatedClient) -> None:
    body = BuildCreate(
        name="sdk-python",
        memory_mb=256,
        recipe=[
            f"RUN i=1; while [ $i -le {LINES} ]; do echo line $i; i=$((i+1)); done",
            "RUN sleep 2; echo baked > /etc/sdk",
        ],
    )
    build = build_create.sync(client=client, body=body)
    assert isinstance(build, Build), build
    assert build.status == BuildStatus.QUEUED, build.status

    async def both() -> tuple[list[LogRecord], list[LogRecord]]:
        cut = ovenbird.connect(CUT_URL, KEY)
        broken = asyncio.to_thread(lambda: list(ovenbird.follow(cut, build.id)))
        return tuple(await asyncio.gather(broken, over_nats(client, build.id)))

    broken, told = asyncio.run(asyncio.wait_for(both(), 300))
    for way, records in (("SSE through broken connections", broken), ("NATS", told)):
        assert [record.seq for record in records] == list(range(1, len(records) + 1)), way
        lines = [record.text for record in records if record.step == 1 and record.stream == "stdout"]
        assert lines == [f"line {line}" for line in range(1, LINES + 1)], (way, len(lines))
        assert records[-1].end and records[-1].end.status == BuildStatus.SUCCEEDED, way
    assert broken == told, "SSE and NATS told different records"
    rest = list(ovenbird.follow(client, build.id, after=len(told) - 5))
    assert rest == told[-5:], rest
    assert list(ovenbird.follow(client, build.id, after=len(told))) == []
    # Another event loop needs other connections.
    late = over_nats(ovenbird.connect(URL, KEY), build.id, after=len(told))
    assert asyncio.run(asyncio.wait_for(late, 60)) == []

    build = ovenbird.build_end(client, build.id, within=60)
    assert build.status == BuildStatus.SUCCEEDED, build.reason
    templates = template_list.sync(client=client, name="sdk-python")
    assert isinstance(templates, TemplateList), templates
    assert [template.id for template in templates.items] == [build.template_id]


async def over_nats(client: ovenbird.rest.AuthenticatedClient, build: str, after: int = 0) -> list[LogRecord]:
    connection = await live.connect(NATS, KEY)
    try:
        return [record async for record in live.follow(client, connection, build, after)]
    finally:
        await connection.close()


def log_that_has_lost_records_is_followed_to_its_end(client: ovenbird.rest.AuthenticatedClient) -> None:
    told = asyncio.run(asyncio.wait_for(over_nats(ovenbird.connect(URL, KEY), LOST), 60))
    assert told == list(ovenbird.follow(client, LOST)), told
    assert told[-1].end and told[-1].seq > len(told), "nothing is lost"


def sandbox_runs_a_command_and_keeps_a_file(client: ovenbird.rest.AuthenticatedClient) -> None:
    sandbox = sandbox_create.sync(client=client, body=SandboxCreate(template="sdk-python"))
    assert isinstance(sandbox, Sandbox), sandbox
    done = sandbox_exec.sync(sandbox.id, client=client, body=Exec(script="cat /etc/sdk"))
    assert isinstance(done, ExecResult) and (done.exit_code, done.stdout) == (0, "baked\n"), done
    content = bytes(range(256)) * 512
    written = sandbox_file_write.sync_detailed(
        sandbox.id, client=client, path="/srv/data", body=File(payload=BytesIO(content))
    )
    assert written.status_code == 204, written
    read = sandbox_file_read.sync(sandbox.id, client=client, path="/srv/data")
    assert isinstance(read, File) and read.payload.read() == content, read
    gone = sandbox_delete.sync(sandbox.id, client=client)
    assert isinstance(gone, Sandbox) and gone.status == SandboxStatus.DESTROYED, gone


def refusals_are_typed(client: ovenbird.rest.AuthenticatedClient) -> None:
    refused = build_create.sync(client=client, body=BuildCreate(name="a", recipe=["RUM true"]))
    assert isinstance(refused, Error) and refused.error.code == "invalid", refused
    nothing = "bld_01h455vb4pex5vsknk084sn02q"
    missing = build_get.sync(nothing, client=client)
    assert isinstance(missing, Error) and missing.error.code == "not_found", missing
    for call in (lambda: list(ovenbird.follow(client, nothing)), lambda: ovenbird.build_end(client, nothing)):
        try:
            call()
        except ovenbird.Refused as error:
            assert (error.status, error.code) == (404, "not_found"), error
        else:
            raise AssertionError("nobody said that there is no such build")


def main() -> None:
    client = ovenbird.connect(URL, KEY)
    tests = [
        recipe_becomes_a_template_while_its_log_is_followed,
        log_that_has_lost_records_is_followed_to_its_end,
        sandbox_runs_a_command_and_keeps_a_file,
        refusals_are_typed,
    ]
    for test in tests:
        test(client)
        print(f"{test.__name__} … ok")
    print(f"{len(tests)} passed, 0 failed")


main()
