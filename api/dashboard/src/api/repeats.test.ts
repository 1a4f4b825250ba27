import { expect, test } from "vitest";
import { KEPT_MAX, Repeats, fresh } from "./repeats";

test("an ask keeps its key until it succeeded, whatever is asked meanwhile", () => {
  const repeats = new Repeats();
  const key = repeats.key("a");
  expect(repeats.key("b")).not.toBe(key);
  expect(repeats.key("a")).toBe(key);
  repeats.done("a");
  expect(repeats.key("a")).not.toBe(key);
});

test("the latest asks are kept, and not every one for ever", () => {
  const repeats = new Repeats();
  const [first, second] = [repeats.key("first"), repeats.key("second")];
  for (let number = 0; number < KEPT_MAX - 2; number += 1) repeats.key(`${number}`);
  expect(repeats.key("first")).toBe(first);
  repeats.key("one more");
  expect(repeats.key("second")).not.toBe(second);
  expect(repeats.key("first")).toBe(first);
});

test("keys are printable and not told twice", () => {
  const keys = new Set(Array.from({ length: 100 }, fresh));
  expect(keys.size).toBe(100);
  for (const key of keys) expect(key).toMatch(/^[0-9a-f]{32}$/);
});
