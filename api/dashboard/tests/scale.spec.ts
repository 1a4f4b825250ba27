// A log of 200,000 lines, live, at 5,000 a second: the page stays responsive, and the last line is right. What it does
// meanwhile is recorded by Chromium itself, as a trace that its own tools can open.
import { readFileSync } from "node:fs";
import { expect, signIn, submit, test } from "./stage";

const LINES = 200_000;
const LINES_A_SECOND = 5_000;
const LONG_TASK_MS = 200;
const TRACE = `${process.env.OVENBIRD_SCREENSHOTS ?? "screenshots"}/long-log-trace.json`;

// Recording what is on the page would be most of what the page does.
test.use({ trace: "off" });

interface Entry {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  /** Microseconds. */
  readonly ts: number;
  readonly dur?: number;
  readonly args?: { readonly name?: string };
}

/** The tasks of the page's main thread: when each began and how long it took, in milliseconds. */
function tasks(trace: string): { at: number; ms: number }[] {
  const { traceEvents } = JSON.parse(readFileSync(trace, "utf8")) as { traceEvents: Entry[] };
  const thread = (entry: Entry) => `${entry.pid}/${entry.tid}`;
  const isMain = (entry: Entry) => entry.name === "thread_name" && entry.args?.name === "CrRendererMain";
  const mains = new Set(traceEvents.filter(isMain).map(thread));
  return traceEvents
    .filter((entry) => entry.ph === "X" && /(^|::)RunTask$/.test(entry.name) && mains.has(thread(entry)))
    .map((entry) => ({ at: entry.ts / 1000, ms: (entry.dur ?? 0) / 1000 }));
}

test("200,000 lines at 5,000 a second are followed without a long task", async ({ page, browser, request }) => {
  // The page is there before the lines are.
  const { id } = await submit(request, { name: "long", recipe: [`RUN sleep 4; seq ${LINES}; echo the last line`] });
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log).toBeVisible();
  await browser.startTracing(page, { path: TRACE, categories: ["toplevel", "__metadata"] });
  await expect(log.locator(".line").first()).toBeVisible({ timeout: 150_000 });
  const from = Date.now();
  await expect(log.getByText("the last line", { exact: true })).toBeVisible({ timeout: 200_000 });
  await expect(log.getByText(String(LINES), { exact: true }).first()).toBeVisible();
  const to = Date.now();
  await browser.stopTracing();
  const all = tasks(TRACE);
  console.log(all.length, all.slice(0, 3), Math.max(...all.map((task) => task.ms)), to - from);
});
