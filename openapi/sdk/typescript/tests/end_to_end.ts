/**
 * The SDK against a real platform, which `api/dev/tests/dev/sdk` starts.
 *
 * Where everything is comes in the environment: OVENBIRD_URL, OVENBIRD_KEY, OVENBIRD_NATS, OVENBIRD_CUT_URL, the same API
 * behind a line that breaks again and again, and OVENBIRD_LOST, a build that is over and has lost some records.
 */

import assert from "node:assert/strict";

import { connect as connectNats } from "@nats-io/transport-node";
import {
  buildCreate,
  buildEnd,
  buildGet,
  type Client,
  connect,
  follow,
  type LogRecord,
  Refused,
  sandboxCreate,
  sandboxDelete,
  sandboxExec,
  sandboxFileRead,
  sandboxFileWrite,
  templateList,
} from "@ovenbird/sdk";
import { followLive } from "@ovenbird/sdk/live";

const LINES = 3000;
const NOTHING = "bld_01h455vb4pex5vsknk084sn02q";

function place(name: string): string {
  const value = process.env[`OVENBIRD_${name}`];
  assert(value, `OVENBIRD_${name} is not set`);
  return value;
}

async function recipeBecomesATemplateWhileItsLogIsFollowed(client: Client): Promise<void> {
  const created = await buildCreate({
    client,
    body: {
      name: "sdk-typescript",
      memory_mb: 256,
      recipe: [
        `RUN i=1; while [ $i -le ${LINES} ]; do echo line $i; i=$((i+1)); done`,
        "RUN sleep 2; echo baked > /etc/sdk",
      ],
    },
  });
  assert(created.data, JSON.stringify(created.error));
  const id = created.data.id;

  const cut = connect(place("CUT_URL"), place("KEY"));
  const connection = await connectNats({ servers: place("NATS"), token: place("KEY") });
  const [broken, told] = await Promise.all([all(follow(cut, id)), all(followLive(client, connection, id))]);
  for (const records of [broken, told]) {
    assert.deepEqual(records.map((record) => record.seq), Array.from(records, (_, at) => at + 1));
    const lines = records.filter((record) => record.step === 1 && record.stream === "stdout");
    assert.deepEqual(lines.map((record) => record.text), Array.from({ length: LINES }, (_, at) => `line ${at + 1}`));
    assert.equal(records.at(-1)?.end?.status, "succeeded");
  }
  assert.deepEqual(broken, told);
  assert.deepEqual(await all(follow(client, id, told.length - 5)), told.slice(-5));
  assert.deepEqual(await all(follow(client, id, told.length)), []);
  assert.deepEqual(await all(followLive(client, connection, id, told.length)), []);
  await connection.close();

  const build = await buildEnd(client, id, 60);
  assert.equal(build.status, "succeeded", JSON.stringify(build.reason));
  const templates = await templateList({ client, query: { name: "sdk-typescript" } });
  assert.deepEqual(templates.data?.items.map((template) => template.id), [build.template_id]);
}

async function logThatHasLostRecordsIsFollowedToItsEnd(client: Client): Promise<void> {
  const id = place("LOST");
  const connection = await connectNats({ servers: place("NATS"), token: place("KEY") });
  const told = await all(followLive(client, connection, id));
  await connection.close();
  assert.deepEqual(told, await all(follow(client, id)));
  const last = told.at(-1);
  assert(last?.end && last.seq > told.length, "nothing is lost");
}

async function sandboxRunsACommandAndKeepsAFile(client: Client): Promise<void> {
  const { data: sandbox, error } = await sandboxCreate({ client, body: { template: "sdk-typescript" } });
  assert(sandbox, JSON.stringify(error));
  const path = { id: sandbox.id };
  const done = await sandboxExec({ client, path, body: { script: "cat /etc/sdk" } });
  assert.deepEqual([done.data?.exit_code, done.data?.stdout], [0, "baked\n"]);
  const content = Uint8Array.from({ length: 131072 }, (_, at) => at % 256);
  const query = { path: "/srv/data" };
  const written = await sandboxFileWrite({ client, path, query, body: new Blob([content]) });
  assert.equal(written.response?.status, 204);
  const read = await sandboxFileRead({ client, path, query, parseAs: "blob" });
  assert(read.data);
  assert.deepEqual(new Uint8Array(await read.data.arrayBuffer()), content);
  assert.equal((await sandboxDelete({ client, path })).data?.status, "destroyed");
}

async function refusalsAreTyped(client: Client): Promise<void> {
  const refused = await buildCreate({ client, body: { name: "a", recipe: ["RUM true"] } });
  assert.equal(refused.error?.error.code, "invalid");
  const missing = await buildGet({ client, path: { id: NOTHING } });
  assert.equal(missing.error?.error.code, "not_found");
  const isMissing = (error: unknown) => error instanceof Refused && error.status === 404 && error.code === "not_found";
  await assert.rejects(all(follow(client, NOTHING)), isMissing);
  await assert.rejects(buildEnd(client, NOTHING, 5), isMissing);
}

async function all(records: AsyncIterable<LogRecord>): Promise<LogRecord[]> {
  const list: LogRecord[] = [];
  for await (const record of records) list.push(record);
  return list;
}

const client = connect(place("URL"), place("KEY"));
const tests = [
  recipeBecomesATemplateWhileItsLogIsFollowed,
  logThatHasLostRecordsIsFollowedToItsEnd,
  sandboxRunsACommandAndKeepsAFile,
  refusalsAreTyped,
];
for (const test of tests) {
  await test(client);
  console.log(`${test.name} … ok`);
}
console.log(`${tests.length} passed, 0 failed`);
