// What the page does when the api, the network or the session is away: it says so, recovers by itself, and loses nothing.
import type { Page } from "@playwright/test";
import { ALL, KEY, ended, expect, logged, signIn, submit, test } from "./stage";

/** One line a second, so that an absence can be seen in them. */
const counting = (lines: number): string => `RUN for n in $(seq 1 ${lines}); do echo line $n; sleep 1; done`;
const counted = (lines: number): string[] => Array.from({ length: lines }, (_, at) => `line ${at + 1}`);

/** The lines of a step that the viewer has, as its reader copies them. */
async function copied(page: Page): Promise<string[]> {
  await page.getByRole("button", { name: "Copy the log" }).click();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  return text.split("\n").filter((line) => /^line \d+$/.test(line));
}

test("an api that is killed, a network that drops and a session that ends leave no gap in a log", async ({ page, context, request }) => {
  const away = ALL ? 30 : 6;
  // Each step finds the build still running, on a slow machine too.
  test.setTimeout(480_000);
  const lines = away + 90;
  const { id } = await submit(request, { name: "goes-on", recipe: [counting(lines)] });
  await signIn(page, `/admin/builds/${id}`);
  const [log, list] = [page.locator(".viewer .live"), page.locator(".filters .live")];
  await expect(page.getByRole("log", { name: "Lines" }).getByText("line 2", { exact: true })).toBeVisible({ timeout: 150_000 });
  await expect(list).toHaveText("live");

  await test.step("the api is killed, and comes back", async () => {
    process.kill(Number(process.env.OVENBIRD_API_PID), "SIGKILL");
    await expect(log).toContainText("offline, retrying in");
    await expect(log).toHaveText("live");
    await expect(list).toHaveText("live");
  });

  await test.step("the network drops", async () => {
    await context.setOffline(true);
    await expect(log).toContainText("offline, retrying in");
    await expect(list).toContainText("offline, retrying in");
    const before = (await copied(page)).length;
    await logged(request, id, `line ${before + away}`);
    expect((await copied(page)).length).toBeLessThan(before + away);
    await context.setOffline(false);
    await expect(log).toHaveText("live");
    await expect(list).toHaveText("live");
  });

  await test.step("the session ends", async () => {
    await context.clearCookies();
    await context.setOffline(true);
    await expect(log).toContainText("offline, retrying in");
    await context.setOffline(false);
    await expect(page.getByRole("heading", { name: "Your session ended" })).toBeVisible();
    await expect(log).toHaveText("signed out");
    await page.getByLabel("API key").fill(KEY);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(log).toHaveText(/^(live|complete)$/);
    await expect(list).toHaveText("live");
  });

  await expect(log).toHaveText("complete", { timeout: 150_000 });
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
  await expect(page.getByRole("alert")).toContainText("This build is not there.");
  await page.goto("/admin/builds?name=%3Cscript%3Ealert(1)%3C/script%3E");
  await expect(page.getByRole("searchbox", { name: /Name of the template/ })).toHaveValue("<script>alert(1)</script>");
  await expect(page.getByRole("heading", { name: "Templates", level: 1 })).toBeVisible();
});

test("a part of the page that breaks off on its way is asked for again", async ({ page }) => {
  const asked: string[] = [];
  await page.route(/\/assets\/editor-/, (route) => {
    asked.push(route.request().url());
    // As a preload, and as the import itself.
    return asked.length <= 2 ? route.abort("connectionreset") : route.continue();
  });
  await signIn(page);
  await page.getByRole("button", { name: "New template" }).click();
  await expect(page.locator(".cm-editor")).toBeVisible();
  expect(asked.length).toBeGreaterThan(2);
});
