// A log of 200,000 lines, live: the page stays responsive, and the last line is right. It takes minutes.
import { ALL, expect, signIn, submit, test } from "./stage";

const LINES = 200_000;
const LONG_TASK_MS = 200;

// Recording would be most of what the page does.
test.use({ trace: "off" });

test("200,000 lines are followed without a long task", async ({ page, request }) => {
  test.skip(!ALL, "takes minutes: cargo dev test --all");
  await page.addInitScript(() => {
    const tasks: { at: number; ms: number }[] = [];
    (window as unknown as { tasks: typeof tasks }).tasks = tasks;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) tasks.push({ at: entry.startTime, ms: entry.duration });
    }).observe({ type: "longtask", buffered: true });
  });
  // The page is there before the lines are.
  const { id } = await submit(request, { name: "long", recipe: [`RUN sleep 15; seq ${LINES}; echo the last line`] });
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("1", { exact: true }).first()).toBeVisible({ timeout: 150_000 });
  const from = await page.evaluate(() => performance.now());
  await expect(log.getByText("the last line", { exact: true })).toBeVisible({ timeout: 200_000 });
  await expect(log.getByText(String(LINES), { exact: true }).first()).toBeVisible();
  const to = await page.evaluate(() => performance.now());
  const tasks = await page.evaluate(() => (window as unknown as { tasks: { at: number; ms: number }[] }).tasks);
  const long = tasks.filter((task) => task.at > from + 1000 && task.at < to && task.ms > LONG_TASK_MS);
  const longest = Math.max(0, ...tasks.filter((task) => task.at > from + 1000).map((task) => task.ms));
  console.log(`${LINES} lines in ${Math.round(to - from)} ms, longest task ${Math.round(longest)} ms`);
  expect(long).toEqual([]);

  // Back to the beginning: what was read is still there.
  await log.evaluate((area) => (area.scrollTop = 0));
  await expect(log.getByText("7", { exact: true }).first()).toBeVisible();
  await page.getByRole("searchbox", { name: "Search the log" }).fill("199999");
  await page.keyboard.press("Enter");
  await expect(log.locator(".here")).toContainText("199999");
});
