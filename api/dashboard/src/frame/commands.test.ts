import { expect, test } from "vitest";
import { Keys, listen, run } from "./commands";

test("single keys and pairs become commands", () => {
  const keys = new Keys();
  expect([keys.press("/", 0), keys.press("n", 1), keys.press("x", 2)]).toEqual(["search", "new", undefined]);
  expect([keys.press("g", 10), keys.press("e", 500)]).toEqual([undefined, "next-error"]);
});

test("a pair that takes too long is none, and its second key means itself", () => {
  const keys = new Keys();
  keys.press("g", 0);
  expect(keys.press("e", 1500)).toBeUndefined();
  keys.press("g", 2000);
  expect([keys.press("n", 2100), keys.press("e", 2200)]).toEqual(["new", undefined]);
});

test("the last listener has the command, and gives it back", () => {
  const heard: string[] = [];
  const first = listen("follow", () => heard.push("list"));
  const second = listen("follow", () => heard.push("log"));
  run("follow");
  second();
  run("follow");
  first();
  expect([heard, run("follow")]).toEqual([["log", "list"], false]);
});
