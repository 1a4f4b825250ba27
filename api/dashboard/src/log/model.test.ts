import { expect, test } from "vitest";
import type { LogRecord } from "../api/types";
import { LogModel, holds, isError } from "./model";

function record(seq: number, more: Partial<LogRecord> = {}): LogRecord {
  return { seq, ts: "2026-01-01T00:00:00Z", attempt: 1, step: 1, stream: "stdout", text: `line ${seq}`, ...more };
}

const texts = (model: LogModel) =>
  Array.from({ length: model.last - model.first }, (_, index) => model.at(model.first + index)?.text);

test("records that come twice after a reconnection are joined by seq", () => {
  const model = new LogModel();
  model.append([record(1), record(2), record(3)]);
  expect(model.append([record(2), record(3), record(4)])).toEqual({ added: 1, gap: false });
  expect(texts(model)).toEqual(["line 1", "line 2", "line 3", "line 4"]);
});

test("a hole is told and nothing behind it is taken, so that going on from `next` closes it", () => {
  const model = new LogModel();
  expect(model.append([record(1), record(3)])).toEqual({ added: 1, gap: true });
  expect(model.next).toBe(2);
  expect(model.append([record(2), record(3)])).toEqual({ added: 2, gap: false });
});

test("a log joined in its middle begins there", () => {
  const model = new LogModel(500);
  expect(model.append([record(499), record(500)])).toEqual({ added: 1, gap: false });
  expect(model.at(0)?.seq).toBe(500);
});

test("the terminal record ends the log and is no line", () => {
  const model = new LogModel();
  model.append([record(1), { seq: 2, end: { status: "failed", last_seq: 2 } }]);
  expect([model.last, model.next, model.end]).toEqual([1, 3, { status: "failed", lastSeq: 2 }]);
});

test("memory is bounded by lines; ordinals stay what they were", () => {
  const model = new LogModel(1, { lines: 100, characters: 1e9 });
  for (let seq = 1; seq <= 40_000; seq += 50) {
    model.append(Array.from({ length: 50 }, (_, index) => record(seq + index)));
  }
  expect([model.first, model.last, model.givenUp]).toEqual([39_900, 40_000, 39_900]);
  expect(model.at(39_899)).toBeUndefined();
  expect(model.at(39_999)?.seq).toBe(40_000);
});

test("memory is bounded by characters; the newest line always stays", () => {
  const model = new LogModel(1, { lines: 100, characters: 1000 });
  model.append([record(1, { text: "a".repeat(600) }), record(2, { text: "b".repeat(600) })]);
  expect([model.first, model.last]).toEqual([1, 2]);
  model.append([record(3, { text: "c".repeat(5000) })]);
  expect([model.first, model.last]).toEqual([2, 3]);
});

test("10 MB in one line come as parts that know of each other", () => {
  const model = new LogModel();
  const parts = 640;
  const text = "x".repeat(16 * 1024);
  for (let seq = 1; seq <= parts; seq += 1) model.append([record(seq, { text, cont: seq < parts })]);
  model.append([record(parts + 1)]);
  expect([model.at(0)?.goneOn, model.at(0)?.goesOn]).toEqual([false, true]);
  expect([model.at(parts - 1)?.goneOn, model.at(parts - 1)?.goesOn]).toEqual([true, false]);
  expect(model.at(parts)?.goneOn).toBe(false);
});

test("colours go on in the next line of the same step and stream only", () => {
  const model = new LogModel();
  model.append([
    record(1, { text: "\u001b[31mred" }),
    record(2, { stream: "stderr" }),
    record(3, { text: "still red\u001b[0m" }),
    record(4),
  ]);
  expect([0, 1, 2, 3].map((ordinal) => model.at(ordinal)?.style)).toEqual([{}, {}, { foreground: 1 }, {}]);
});

test("a line is found by its seq, and by the next one where it was given up", () => {
  const model = new LogModel(1, { lines: 10, characters: 1e9 });
  model.append(Array.from({ length: 30 }, (_, index) => record(index + 1)));
  expect([model.find(25), model.find(3), model.find(99)]).toEqual([24, 20, 30]);
});

test("errors are told by their words, and found texts by what is shown", () => {
  const model = new LogModel();
  model.append([record(1, { text: "npm ERR! Failed: x" }), record(2, { text: "terrorised by mirrors" })]);
  model.append([record(3, { text: "\u001b[32mgre\u001b[1men" })]);
  expect([0, 1].map((ordinal) => isError(model.at(ordinal)!))).toEqual([true, false]);
  expect([holds(model.at(2)!, "green"), holds(model.at(2)!, "32m")]).toEqual([true, false]);
});
