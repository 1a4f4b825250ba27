// What the page does when the api or the network is away: it says so, recovers by itself, and loses nothing.
import type { Page } from "@playwright/test";
import { ALL, ended, expect, logged, signIn, submit, test } from "./stage";

/** One line a second, so that an absence can be seen in them. */
const counting = (lines: number): string => `RUN for n in $(seq 1 ${lines}); do echo line $n; sleep 1; done`;
const counted = (lines: number): string[] => Array.from({ length: lines }, (_, at) => `line ${at + 1}`);

/** The lines of a step that the viewer has, as its reader copies them. */
async function copied(page: Page): Promise<string[]> {
  await page.getByRole("button", { name: "Copy the log" }).click();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  return text.split("\n").filter((line) => /^line \d+$/.test(line));
}

test("an api that is killed and comes back costs the page nothing but a moment", async ({ page, request }) => {
  const { id } = await submit(request, { name: "restarts", recipe: [counting(20)] });
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("line 3", { exact: true })).toBeVisible({ timeout: 150_000 });
  await expect(page.locator(".filters .live")).toHaveText("live");
  process.kill(Number(process.env.OVENBIRD_API_PID), "SIGKILL");
  await expect(page.locator(".viewer .live")).toContainText("offline, retrying in");
  await expect(page.locator(".viewer .live")).toHaveText(/^live|complete$/);
  await expect(page.locator(".filters .live")).toHaveText("live");
  await expect(page.locator("article.open .badge").first()).toHaveText("succeeded", { timeout: 150_000 });
  await expect(page.locator(".viewer .live")).toHaveText("complete");
  expect(await copied(page)).toEqual(counted(20));
});

test("a network that drops in mid-log leaves no gap in it", async ({ page, context, request }) => {
  const [lines, back] = ALL ? [45, 38] : [18, 12];
  const { id } = await submit(request, { name: "drops", recipe: [counting(lines)] });
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("line 2", { exact: true })).toBeVisible({ timeout: 150_000 });
  await context.setOffline(true);
  await expect(page.locator(".viewer .live")).toContainText("offline, retrying in");
  await expect(page.locator(".filters .live")).toContainText("offline, retrying in");
  await logged(request, id, `line ${back}`);
  expect((await copied(page)).length).toBeLessThan(back);
  await context.setOffline(false);
  await expect(page.locator(".viewer .live")).toHaveText(/^live|complete$/);
  await ended(request, id);
  await expect(page.locator(".viewer .live")).toHaveText("complete");
  await expect(page.locator("article.open .badge").first()).toHaveText("succeeded");
  expect(await copied(page)).toEqual(counted(lines));
});

test("while no events come the list polls, says so, and is right all the same", async ({ page, request }) => {
  await page.route("**/v1/admin/events/stream", (route) => route.abort());
  await signIn(page, "/admin/builds");
  await expect(page.locator(".filters .live")).toHaveText("polling every 3 s");
  const { id } = await submit(request, { name: "polled", recipe: ["RUN echo polled"] });
  const row = page.locator("article", { has: page.getByRole("link", { name: /polled/ }) }).first();
  await expect(row).toBeVisible();
  await ended(request, id);
  await expect(row.locator(".badge").first()).toHaveText("succeeded");
  await page.unroute("**/v1/admin/events/stream");
  await expect(page.locator(".filters .live")).toHaveText("live");
});

test("what does not exist is said, and the page goes on", async ({ page }) => {
  await signIn(page, "/admin/builds/bld_01h455vb4pex5vsknk084sn02q");
  await expect(page.getByRole("alert").or(page.getByRole("status")).getByText(/no build|not found|unknown/i).first()).toBeVisible();
  await page.goto("/admin/builds?name=%3Cscript%3Ealert(1)%3C/script%3E");
  await expect(page.getByRole("searchbox", { name: /Name of the template/ })).toHaveValue("<script>alert(1)</script>");
  await expect(page.getByRole("heading", { name: "Templates", level: 1 })).toBeVisible();
});
