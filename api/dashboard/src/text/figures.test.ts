import { expect, test } from "vitest";
import { age, clock, count, duration, exact, memory, size, ticking } from "./figures";

test("sizes are in IEC units with at most one decimal", () => {
  expect([0, 1023, 1024, 1288490189, 5.5e14].map(size)).toEqual(["0 B", "1023 B", "1.0 KiB", "1.2 GiB", "500 TiB"]);
  expect([512, 1024, 1536, 2048].map(memory)).toEqual(["512 MiB", "1 GiB", "1536 MiB", "2 GiB"]);
});

test("durations grow from milliseconds to days without a gap", () => {
  expect([0, 840, 12_400, 59_940, 59_960, 64_000, 7_500_000, 274_000_000].map(duration)).toEqual([
    "0 ms", "840 ms", "12.4 s", "59.9 s", "59 s", "1 m 04 s", "2 h 05 m", "3 d 04 h",
  ]);
  expect(ticking(-5)).toBe("0 s");
});

test("times are relative, before and after now", () => {
  const now = 1_700_000_000_000;
  expect([0, 30_000, 240_000, 10_800_000, 200_000_000].map((away) => age(now - away, now))).toEqual([
    "just now", "30 s ago", "4 min ago", "3 h ago", "2 d ago",
  ]);
  expect(age(now + 300_000, now)).toBe("in 5 min");
});

test("exact times name their zone", () => {
  expect(exact(1_700_000_000_000)).toMatch(/^2023-11-1\d \d\d:\d\d:20 [+-]\d\d:\d\d$/);
  expect(clock(1_700_000_000_123)).toMatch(/^\d\d:\d\d:20\.123$/);
});

test("one is not plural", () => {
  expect([count(1, "line"), count(200_000, "line")]).toEqual(["1 line", "200,000 lines"]);
});
