// A log of 200,000 lines, live, as fast as the guest writes them: the page stays responsive, and the last line is right.
// What its main thread does meanwhile is recorded by Chromium itself (the DevTools protocol's `Tracing`), as a trace that
// chrome://tracing opens.
import { readFileSync } from "node:fs";
import { expect, signIn, submit, test, written } from "./stage";

const LINES = 200_000;
const LINES_A_SECOND = 5_000;
const LONG_TASK_MS = 200;
const TRACE = `${process.env.OVENBIRD_SCREENSHOTS ?? "screenshots"}/long-log-trace.json`;

// Playwright's own recording would be most of what the page does.
test.use({ trace: "off" });

interface Entry {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  /** Microseconds, as all times here. */
  readonly ts: number;
  readonly dur?: number;
  /** What of `dur` the thread had a processor for. */
  readonly tdur?: number;
  readonly args?: { readonly name?: string };
}

/** Milliseconds by the clock of the trace. */
const clock = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

interface Span {
  readonly from: number;
  readonly to: number;
}

/** Tells when the machine stood still, by a timer that has nothing else to do, until it is asked. */
function watchStalls(): () => readonly Span[] {
  const [every, least] = [20, 150];
  const stalls: Span[] = [];
  let last = clock();
  const look = () => {
    const now = clock();
    if (now - last > least) stalls.push({ from: last, to: now });
    last = now;
  };
  const timer = setInterval(look, every);
  return () => {
    clearInterval(timer);
    return stalls;
  };
}

/** The tasks of the page's main thread between two marks, and the milliseconds between these. */
function recorded(from: string, to: string, stalls: readonly Span[]) {
  const { traceEvents } = JSON.parse(readFileSync(TRACE, "utf8")) as { traceEvents: Entry[] };
  const mark = (name: string) => traceEvents.find((entry) => entry.name === name)?.ts ?? Number.NaN;
  const thread = (entry: Entry) => `${entry.pid}/${entry.tid}`;
  const isMain = (entry: Entry) => entry.name === "thread_name" && entry.args?.name === "CrRendererMain";
  const mains = new Set(traceEvents.filter(isMain).map(thread));
  const tasks = traceEvents
    .filter((entry) => entry.ph === "X" && /(^|::)RunTask$/.test(entry.name) && mains.has(thread(entry)))
    .filter((entry) => entry.ts > mark(from) && entry.ts < mark(to))
    .map(({ ts, dur = 0, tdur = 0 }) => ({
      at: (ts - mark(from)) / 1000,
      ms: dur / 1000,
      own: tdur / 1000,
      stalled: stalls.some((stall) => ts / 1000 < stall.to && (ts + dur) / 1000 > stall.from),
    }));
  return { tasks, ms: (mark(to) - mark(from)) / 1000 };
}

const sum = (values: readonly number[]): number => values.reduce((one, other) => one + other, 0);

test("200,000 lines at 5,000 a second are followed without a long task", async ({ page, browser, request }) => {
  // The page is there before the lines are.
  const { id } = await submit(request, { name: "long", recipe: [`RUN sleep 3; seq ${LINES}; echo the last line`] });
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log).toBeVisible();
  await browser.startTracing(page, { path: TRACE, categories: ["toplevel", "blink.user_timing"] });
  await expect(log.locator(".line").first()).toBeVisible({ timeout: 150_000 });
  await page.evaluate(() => performance.mark("lines begin"));
  const stallsEnd = watchStalls();
  await expect(log.getByText("the last line", { exact: true })).toBeVisible({ timeout: 200_000 });
  await page.evaluate(() => performance.mark("lines end"));
  const stalls = stallsEnd();
  await browser.stopTracing();
  await expect(log.getByText(String(LINES), { exact: true }).first()).toBeVisible();

  // Back to the beginning: what was read is still there.
  await log.evaluate((area) => (area.scrollTop = 0));
  await expect(log.getByText("7", { exact: true }).first()).toBeVisible();
  await page.getByRole("searchbox", { name: "Search the log" }).fill("199999");
  await page.keyboard.press("Enter");
  await expect(log.locator(".here")).toContainText("199999");

  const { tasks, ms } = recorded("lines begin", "lines end", stalls);
  expect(tasks.length).toBeGreaterThan(100);
  const rate = LINES / (ms / 1000);
  const guest = LINES / ((await written(request, id, LINES, "the last line")) / 1000);
  const later = tasks.filter((task) => task.at > 1000);
  // A standstill of the machine is not the page's.
  const longest = later.filter((task) => !task.stalled).reduce((one, other) => (other.ms > one.ms ? other : one));
  const [held, own] = [sum(tasks.map((task) => task.ms)), sum(tasks.map((task) => task.own))];
  console.log(
    `${LINES} lines in ${Math.round(ms)} ms: ${Math.round(rate)} a second, ${Math.round(guest)} a second as the guest wrote them; ` +
      `longest task ${Math.round(longest.ms)} ms, of which it ran ${Math.round(longest.own)} ms; ` +
      `all tasks ${Math.round(held)} ms, of which they ran ${Math.round(own)} ms; ${stalls.length} standstills`,
  );
  // What the page itself costs, on whatever machine.
  expect(Math.max(...later.map((task) => task.own))).toBeLessThan(LONG_TASK_MS);
  expect(LINES / (own / 1000)).toBeGreaterThan(LINES_A_SECOND);
  // A machine that has no processor for the page's thread for most of its time tells of itself, not of the page.
  if (own < held / 2) return void test.info().annotations.push({ type: "busy machine", description: "its times were not judged" });
  expect(longest.ms).toBeLessThan(LONG_TASK_MS);
  // A guest that is itself too slow for more shows no more.
  expect(rate).toBeGreaterThan(Math.min(LINES_A_SECOND, 0.9 * guest));
});
