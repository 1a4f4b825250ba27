import { expect, test } from "vitest";
import type { Build, BuildStatus } from "../api/types";
import { changed, empty, firstPage, nextPage, removed, show, unseen } from "./feed";

function build(number: number, status: BuildStatus = "succeeded", more: Partial<Build> = {}): Build {
  return {
    id: `bld_${number.toString().padStart(4, "0")}`,
    name: "web",
    tag: "latest",
    base_template: "minimal",
    recipe: ["RUN true"],
    vcpus: 1,
    memory_mb: 512,
    lane: "default",
    status,
    attempt: 1,
    current_step: 1,
    total_steps: 1,
    requested_by: "key_1",
    created_at: new Date(1_700_000_000_000 + number * 1000).toISOString(),
    queued_at: new Date(1_700_000_000_000 + number * 1000).toISOString(),
    links: { self: "", logs: "", stream: "" },
    ...more,
  };
}

const ANY = { status: "", name: "" } as const;
const ids = (builds: readonly Build[]) => builds.map((it) => Number(it.id.slice(4)));
const loaded = (numbers: number[], cursor?: string) =>
  firstPage(empty(ANY), numbers.map((number) => build(number)), cursor, false);

test("pages follow each other without duplicates", () => {
  const feed = nextPage(loaded([9, 8, 7], "c"), [build(7), build(6), build(5)], undefined);
  expect([ids(feed.builds), feed.cursor]).toEqual([[9, 8, 7, 6, 5], undefined]);
});

test("a new build comes to the top, or waits while somebody reads", () => {
  const first = loaded([3, 2, 1]);
  expect(ids(changed(first, build(4), false).builds)).toEqual([4, 3, 2, 1]);
  const held = changed(changed(first, build(4), true), build(5), true);
  expect([ids(held.builds), ids(held.held)]).toEqual([[3, 2, 1], [5, 4]]);
  expect(ids(show(held).builds)).toEqual([5, 4, 3, 2, 1]);
});

test("reading the first page again changes rows in place and drops what is gone", () => {
  const feed = nextPage(loaded([9, 8, 7], "c"), [build(6)], undefined);
  const again = firstPage(feed, [build(9, "failed"), build(7)], "c", true);
  expect(ids(again.builds)).toEqual([9, 7, 6]);
  expect(again.builds[0]?.status).toBe("failed");
});

test("an answer that was overtaken changes nothing", () => {
  const feed = changed(loaded([1]), build(1, "failed"), false);
  expect(changed(feed, build(1, "running"), false).builds[0]?.status).toBe("failed");
  const running = firstPage(empty(ANY), [build(1, "running", { current_step: 3 })], undefined, false);
  expect(changed(running, build(1, "running", { current_step: 2 }), false).builds[0]?.current_step).toBe(3);
});

test("a build that goes back to the queue is queued again", () => {
  const running = firstPage(empty(ANY), [build(1, "running")], undefined, false);
  expect(changed(running, build(1, "queued"), false).builds[0]?.status).toBe("queued");
  expect(changed(running, build(1, "running", { attempt: 2, current_step: 0 }), false).builds[0]?.attempt).toBe(2);
});

test("steps that were read stay when a list tells the build without them", () => {
  const logs = [{ step: 1, phase: "step", cmd: "RUN true", stdout: "", stderr: "", ok: true, elapsed_ms: 1, cached: false }];
  const feed = firstPage(empty(ANY), [build(1, "running", { logs } as Partial<Build>)], undefined, false);
  expect(changed(feed, build(1, "succeeded"), false).builds[0]?.logs).toEqual(logs);
});

test("what does not fit the filter does not come in, and what ends under it stays to be read", () => {
  const running = { status: "running", name: "" } as const;
  const feed = firstPage(empty(running), [build(1, "running")], undefined, false);
  expect(ids(changed(feed, build(2, "queued"), false).builds)).toEqual([1]);
  expect(changed(feed, build(1, "failed"), true).builds[0]?.status).toBe("failed");
});

test("active builds below the first page are asked for singly", () => {
  const feed = nextPage(loaded([9], "c"), [build(2, "running"), build(1)], undefined);
  expect(unseen(feed, [build(9)])).toEqual(["bld_0002"]);
});

test("a deleted build goes", () => {
  expect(ids(removed(loaded([2, 1]), "bld_0002").builds)).toEqual([1]);
});
