import { expect, test } from "vitest";
import { ending, withoutEnding } from "./end";

test("an end is counted up to the first other character, or to the beginning", () => {
  expect([ending("a\\\\", "\\"), ending("\r\r", "\r"), ending("", "x"), ending("xa", "x")]).toEqual([2, 2, 0, 0]);
  expect(ending("a\\\\  ", "\\", 3)).toBe(2);
  expect([withoutEnding("/admin//", "/"), withoutEnding("//", "/")]).toEqual(["/admin", ""]);
});

test("a text of a million such characters takes no time", () => {
  const text = "\r".repeat(1_000_000);
  const began = process.cpuUsage();
  expect([ending(text, "\r"), withoutEnding(`${text}x`, "\r").length]).toEqual([1_000_000, 1_000_001]);
  expect(process.cpuUsage(began).user / 1000).toBeLessThan(500);
});
