import { expect, test } from "vitest";
import type { LogRecord } from "../api/types";
import { LogModel } from "./model";
import { LogView, columns } from "./view";

function filled(count: number, more: (seq: number) => Partial<LogRecord> = () => ({}), lines = 1_000_000): LogModel {
  const model = new LogModel(1, { lines, characters: 1e9 });
  grow(model, count, more);
  return model;
}

function grow(model: LogModel, count: number, more: (seq: number) => Partial<LogRecord> = () => ({})): void {
  const records = Array.from({ length: count }, (_, index) => {
    const seq = model.next + index;
    return { seq, step: 1, stream: "stdout" as const, text: `line ${seq}`, ...more(seq) };
  });
  model.append(records);
}

const never = () => false;

test("one step's lines are shown alone, live ones too", () => {
  const odd = (seq: number) => ({ step: seq % 2 });
  const model = filled(10, odd);
  const view = new LogView(model, 1);
  expect(view.length).toBe(5);
  grow(model, 3, odd);
  view.update();
  expect([view.length, view.at(5)?.seq, view.at(6)?.seq]).toEqual([7, 11, 13]);
  expect(view.index(model.find(12))).toBe(6);
});

test("lines that were given up go from the top, and the viewer learns how many", () => {
  for (const step of [undefined, 1]) {
    const model = filled(10, undefined, 10);
    const view = new LogView(model, step);
    view.wrap(3);
    const before = view.rows;
    grow(model, 4);
    expect(view.update()).toBe(4);
    expect([view.length, view.at(0)?.seq, view.top(0)]).toEqual([10, 5, 0]);
    // "line 5" takes two rows, "line 10" three.
    expect(view.rows).toBe(before + 4);
    expect(view.lineAt(view.rows - 1)).toBe(9);
  }
});

test("wrapped lines are as high as their text needs", () => {
  const text = ["", "abcde", "abcdef", "日本語", "a\tb"];
  const view = new LogView(filled(5, (seq) => ({ text: text[seq - 1] ?? "" })));
  view.wrap(5);
  expect([0, 1, 2, 3, 4].map((index) => view.height(index))).toEqual([1, 1, 2, 2, 4]);
  expect([0, 1, 2, 3, 4].map((index) => view.top(index))).toEqual([0, 1, 2, 4, 6]);
  expect([0, 1, 2, 3, 4, 5, 9].map((row) => view.lineAt(row))).toEqual([0, 1, 2, 2, 3, 3, 4]);
  view.wrap(0);
  expect([view.rows, view.top(3)]).toEqual([5, 3]);
});

test("columns count tab stops and wide characters", () => {
  expect(["abc", "日本", "🧱", "größe"].map(columns)).toEqual([3, 4, 3, 5]);
});

test("a search finds old and new lines, and goes around the end", () => {
  const model = filled(100);
  const view = new LogView(model);
  view.search("LINE 9");
  expect(view.searchOn(never)).toBe(true);
  expect(view.found.length).toBe(11);
  expect([view.foundFrom(-1, 1), view.foundFrom(8, 1), view.foundFrom(98, 1), view.foundFrom(8, -1)]).toEqual([8, 89, 8, 98]);
  grow(model, 900);
  view.update();
  view.searchOn(never);
  expect(view.found.length).toBe(111);
  view.search("nothing like it");
  view.searchOn(never);
  expect(view.foundFrom(0, 1)).toBeUndefined();
});

test("a long search may be done in bites", () => {
  const view = new LogView(filled(5000));
  view.search("line");
  let bites = 0;
  while (!view.searchOn(() => true)) {
    bites += 1;
    if (bites > 20) break;
    // The first check is at a multiple of 512: give each bite one more.
    let first = true;
    view.searchOn(() => (first ? (first = false) : true));
  }
  expect(view.found.length).toBe(5000);
});

test("found lines that were given up are forgotten", () => {
  const model = filled(10, undefined, 10);
  const view = new LogView(model);
  view.search("line");
  view.searchOn(never);
  grow(model, 5);
  view.update();
  view.searchOn(never);
  expect([view.found.length, view.found[0]]).toEqual([10, 5]);
});

test("the next error is looked for around the end", () => {
  const view = new LogView(filled(50, (seq) => (seq === 20 ? { text: "error: no" } : {})));
  expect([view.errorFrom(-1), view.errorFrom(19), view.errorFrom(30)]).toEqual([19, 19, 19]);
  expect(new LogView(filled(5)).errorFrom(-1)).toBeUndefined();
});
