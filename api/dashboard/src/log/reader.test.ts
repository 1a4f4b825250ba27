import { expect, test } from "vitest";
import { type Connection, type Outside, follow } from "../api/events";
import { SignIns } from "../api/signins";
import { LogModel } from "./model";
import { logReader } from "./reader";

const line = (seq: number) => ({ seq, ts: "2026-01-01T00:00:00Z", attempt: 1, step: 1, stream: "stdout", text: `line ${seq}` });
const end = (seq: number) => ({ seq, end: { status: "succeeded", last_seq: seq } });

/** Reads the log of an api that has these records only, and cuts each connection after `cut` of them. */
async function read(records: readonly { seq: number }[], cut = Number.POSITIVE_INFINITY) {
  const model = new LogModel();
  const asked: number[] = [];
  const said: string[] = [];
  const ending = new AbortController();
  const outside: Outside = {
    now: () => 0,
    random: () => 1,
    breathe: () => Promise.resolve(),
    signIns: new SignIns(),
    onOffline: () => () => undefined,
    sleep: () => Promise.resolve(),
    fetch: (path) => {
      const from = Number(new URL(String(path), "http://api").searchParams.get("from_seq"));
      asked.push(from);
      if (asked.length > 20) ending.abort();
      const sent = records.filter((record) => record.seq >= from).slice(0, cut);
      return Promise.resolve(new Response(sent.map((record) => `data: ${JSON.stringify(record)}\n\n`).join("")));
    },
  };
  const note = (connection: Connection) => said.push(connection.state);
  await follow(logReader("bld_1", model, () => undefined, note), ending.signal, outside);
  const texts = Array.from({ length: model.last }, (_, ordinal) => model.at(ordinal)?.text);
  return { model, asked, said, texts };
}

test("records that are lost are asked for once more, told, and gone past", async () => {
  const { model, asked, said, texts } = await read([line(1), line(2), line(80), line(81), end(82)]);
  expect(texts).toEqual(["line 1", "line 2", "records 3–79 are lost", "line 80", "line 81"]);
  expect([model.lost, model.end?.status, asked, said.at(-1)]).toEqual([77, "succeeded", [1, 3], "over"]);
});

test("every loss is told, also one at the beginning and one before the end", async () => {
  const { model, texts } = await read([line(3), line(5), end(9)]);
  expect(texts).toEqual(["records 1–2 are lost", "line 3", "record 4 is lost", "line 5", "records 6–8 are lost"]);
  expect([model.lost, model.find(4), model.at(model.find(4))?.seq]).toEqual([6, 2, 4]);
});

test("a gap in mid-connection is the connection's, and closed by going on from before it", async () => {
  const model = new LogModel();
  model.join();
  expect(model.append([line(1), line(4)].map((record) => record as never)).gap).toBe(true);
  // Without a new connection it proves nothing that the gap is still there.
  expect(model.append([line(5)].map((record) => record as never)).gap).toBe(true);
  model.join();
  expect(model.append([line(2), line(3), line(4)].map((record) => record as never))).toEqual({ added: 3, gap: false });
  expect(model.lost).toBe(0);
});

test("connections that break again and again lose nothing", async () => {
  const { model, texts } = await read([1, 2, 3, 4, 5].map(line).concat(end(6) as never), 2);
  expect([texts.length, model.lost, model.end?.lastSeq]).toEqual([5, 0, 6]);
});
