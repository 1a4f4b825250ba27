// The main ways through the dashboard, on the real platform.
import { ALL, KEY, ended, expect, fits, has, judge, made, sandboxes, signIn, submit, test } from "./stage";

const BROKEN = {
  name: "broken",
  recipe: ["RUN echo all is fine", "RUN echo 'error: no such thing' >&2; exit 3", "RUN true"],
};
const HOSTILE = {
  name: "hostile",
  recipe: [
    "RUN echo '<img src=x onerror=alert(1)><script>alert(2)</script>'; printf '\\033[31mred\\033[0m \\342\\200\\256gnp.exe\\n'",
    "RUN head -c 400000 /dev/zero | tr '\\0' x; echo; echo end of it",
  ],
};

// They are built while other tests look elsewhere.
test.beforeAll(async ({ request }) => {
  for (const body of [BROKEN, HOSTILE]) await made(request, body);
});

test("a wrong key is refused with its reason, a right one opens the templates", async ({ page }) => {
  await page.goto("/admin");
  await expect(page).toHaveURL(/\/admin\/templates$/);
  await page.getByLabel("API key").fill(`ovb_${"A".repeat(43)}`);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("alert")).toContainText("unknown, revoked or expired");
  await judge(page, "sign-in");
  await page.getByLabel("API key").fill(KEY);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByText("minimal").first()).toBeVisible();
  await judge(page, "templates");
  // The key is in no storage that a script can read.
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  expect(kept).not.toContain("ovb_");
  expect(kept).not.toContain("ovenbird_session");
  await page.reload();
  await expect(page.getByRole("heading", { name: "Templates", level: 1 })).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByLabel("API key")).toBeVisible();
});

test("a recipe's mistake is shown at its word and mended, and the build is watched live to its end", async ({ page }) => {
  await signIn(page);
  await page.getByRole("button", { name: "New template" }).click();
  await page.getByLabel("Name", { exact: true }).fill("hello");
  const editor = page.getByRole("textbox", { name: "Recipe" });
  await editor.click();
  await page.keyboard.type("RUN for n in $(seq 1 12); do echo line $n; sleep 1; done\nRUNN echo ready");
  await expect(page.locator("#draft-recipe-problems")).toContainText("2:1");
  await expect(page.locator("#draft-recipe-problems")).toContainText("RUNN");
  await expect(page.locator(".cm-lintRange-error")).toHaveText("RUNN");
  await judge(page, "create");

  // Submitting it anyway loses nothing.
  await page.getByRole("button", { name: "Build template" }).click();
  await expect(page.locator("#draft-recipe-problems")).toContainText("RUNN");
  await expect(page.getByLabel("Name", { exact: true })).toHaveValue("hello");
  await editor.click();
  await page.keyboard.press("Control+End");
  for (let step = 0; step < " echo ready".length; step += 1) await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Backspace");
  await expect(page.getByText("Would run 2 steps")).toBeVisible();
  await page.getByRole("button", { name: "Build template" }).click();

  await expect(page).toHaveURL(/\/admin\/builds\/bld_/);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("line 2", { exact: true })).toBeVisible({ timeout: 150_000 });
  // Live: the build goes on while its lines are here.
  await expect(page.locator("article.open .badge").first()).toHaveText("running");
  await judge(page, "build-running");
  await expect(page.locator("article.open .badge").first()).toHaveText("succeeded", { timeout: 150_000 });
  await expect(log.getByText("ready", { exact: true })).toBeVisible();
  await expect(page.locator(".viewer .live")).toHaveText("complete");
  await judge(page, "build-succeeded");
});

test("a failing build opens on the failing step, with its exit code and its log alone", async ({ page, request }) => {
  const { id } = await made(request, BROKEN);
  expect((await ended(request, id)).status).toBe("failed");
  await signIn(page, "/admin/builds?status=failed");
  await page.getByRole("link", { name: /broken/ }).click();
  await expect(page.locator(".verdict")).toContainText("exited with 3");
  await expect(page.getByRole("button", { name: /step 2/ })).toHaveAttribute("aria-pressed", "true");
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("error: no such thing", { exact: true })).toBeVisible();
  await expect(log.getByText("all is fine", { exact: true })).toHaveCount(0);
  await judge(page, "build-failed");

  await page.getByRole("button", { name: "Whole log" }).click();
  await expect(log.getByText("all is fine", { exact: true })).toBeVisible();
  await page.keyboard.press("g");
  await page.keyboard.press("e");
  await expect(log.locator(".here")).toBeVisible();

  // A link to a line leads there.
  const place = log.getByText("error: no such thing", { exact: true }).locator("xpath=ancestor::*[contains(@class,'line')][1]").locator("a.place");
  await place.click();
  await expect(page).toHaveURL(/line=\d+/);
  await page.reload();
  await expect(page.getByRole("log", { name: "Lines" }).locator(".target")).toContainText("no such thing");

  // Begin again from its recipe.
  await page.getByRole("button", { name: "Edit as new" }).click();
  const name = page.getByLabel("Name", { exact: true });
  await expect(name).toHaveValue("broken");
  // Another one put over what is half written does not lose it.
  await name.fill("half-written");
  await page.getByLabel("Start from a previous build").selectOption(id);
  await expect(name).toHaveValue("broken");
  await page.getByRole("button", { name: "Bring it back" }).click();
  await expect(name).toHaveValue("half-written");
});

test("a build that is opened after another one is itself, though it is in no list", async ({ page, request }) => {
  const [broken, hostile] = [await made(request, BROKEN), await made(request, HOSTILE)];
  for (const { id } of [broken, hostile]) await ended(request, id);
  await signIn(page, `/admin/builds/${broken.id}?name=nothing`);
  const linked = page.getByRole("region", { name: "The linked build" });
  const log = linked.getByRole("log", { name: "Lines" });
  await expect(linked.locator(".verdict")).toContainText("exited with 3");
  await page.evaluate((path) => {
    history.pushState(null, "", path);
    dispatchEvent(new PopStateEvent("popstate"));
  }, `/admin/builds/${hostile.id}?name=nothing`);
  await expect(linked.locator(".verdict")).toContainText("published: hostile:latest");
  await expect(log.getByText("end of it", { exact: true })).toBeVisible();
  await page.goBack();
  await expect(linked.locator(".verdict")).toContainText("exited with 3");
  await expect(log.getByText("error: no such thing", { exact: true })).toBeVisible();
});

test("a running build is cancelled with a reason, honestly", async ({ page, request }) => {
  const { id } = await submit(request, { name: "sleeper", recipe: ["RUN sleep 600"] });
  await signIn(page, `/admin/builds/${id}`);
  const badge = page.locator("article.open .badge").first();
  await expect(badge).toHaveText("running", { timeout: 150_000 });
  await page.getByRole("button", { name: "Cancel build" }).click();
  await page.getByLabel(/^Why/).fill("it only sleeps <script>alert(1)</script>");
  await judge(page, "cancel");
  await page.getByRole("button", { name: "Cancel the build" }).click();
  await expect(badge).toHaveText(/cancelling|cancelled/);
  await expect(badge).toHaveText("cancelled", { timeout: 150_000 });
  await expect(page.locator(".verdict")).toContainText("it only sleeps <script>alert(1)</script>");
  await expect(page.locator(".verdict")).toContainText("sandbox was gone", { timeout: 90_000 });
});

test("output is text, whatever is in it", async ({ page, request }) => {
  const { id } = await made(request, HOSTILE);
  expect((await ended(request, id)).status).toBe("succeeded");
  await signIn(page, `/admin/builds/${id}`);
  const log = page.getByRole("log", { name: "Lines" });
  await expect(log.getByText("end of it", { exact: true })).toBeVisible();
  await log.evaluate((area) => (area.scrollTop = 0));
  await expect(log.getByText("<img src=x onerror=alert(1)><script>alert(2)</script>", { exact: true })).toBeVisible();
  await expect(log.locator(".front-1")).toHaveText("red");
  await expect(log.getByText("[U+202E]gnp.exe")).toBeVisible();
  expect(await log.locator("img, script").count()).toBe(0);
  await page.getByRole("button", { name: "Wrap lines" }).click();
  await judge(page, "hostile-output");
});

test("a sandbox is started from a template and a command runs in it; it goes with its panel", async ({ page, request }) => {
  test.skip(!has("/v1/sandboxes"), "this api has no sandboxes");
  const states = async () => (await sandboxes(request)).map((sandbox) => sandbox.status);
  const start = async () => {
    await page.getByRole("button", { name: "Actions for hello:latest" }).click();
    await page.getByRole("menuitem", { name: "Start sandbox" }).click();
  };
  // Left while it boots.
  await signIn(page, "/admin/builds");
  await page.getByRole("link", { name: "Templates", exact: true }).last().click();
  await start();
  await expect.poll(states).toEqual([expect.stringMatching(/^(creating|running)$/)]);
  await page.goBack();
  await expect(page).toHaveURL(/\/admin\/builds$/);
  await expect.poll(states).toEqual(["destroyed"]);

  await page.goForward();
  await start();
  const command = page.getByLabel("Command", { exact: true });
  await expect(command).toBeVisible({ timeout: 120_000 });
  await command.fill("sleep 1; echo from the inside; exit 4");
  await page.getByRole("button", { name: "Run" }).click();
  await command.fill("true");
  await expect(page.getByText("from the inside", { exact: true })).toBeVisible();
  await expect(page.getByText(/exited with 4/)).toBeVisible();
  // What was typed meanwhile is the next command.
  await expect(command).toHaveValue("true");
  await judge(page, "sandbox");
  await page.getByRole("button", { name: "Delete the sandbox" }).click();
  await expect(command).toHaveCount(0);
  await expect.poll(states).toEqual(["destroyed", "destroyed"]);
});

test("a template is deleted after its name was typed", async ({ page }) => {
  test.skip(!has("/v1/admin/templates/{name}"), "this api deletes no templates");
  await signIn(page);
  await page.getByRole("button", { name: "Actions for hello:latest" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  const confirm = page.getByRole("button", { name: "Delete the template" });
  await expect(confirm).toBeDisabled();
  await expect(page.getByText("hello:latest names nothing any more")).toBeVisible();
  await page.getByLabel(/^Type/).fill("hello");
  await judge(page, "delete");
  await confirm.click();
  await expect(page.getByRole("button", { name: "Actions for hello:latest" })).toHaveCount(0);
});

test("the main way needs no mouse", async ({ page }) => {
  await page.goto("/admin/builds");
  await expect(page.getByLabel("API key")).toBeFocused();
  await page.keyboard.type(KEY);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Templates", level: 1 })).toBeVisible();
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keys" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);

  await page.keyboard.press("n");
  const name = page.getByLabel("Name", { exact: true });
  await expect(name).toBeVisible();
  while (!(await name.evaluate((field) => field === document.activeElement))) await page.keyboard.press("Tab");
  await page.keyboard.type("by-keys");
  const editor = page.getByRole("textbox", { name: "Recipe" });
  await expect(editor).toBeVisible();
  for (let tab = 0; tab < 3; tab += 1) await page.keyboard.press("Tab");
  await expect(editor).toBeFocused();
  await page.keyboard.type("RUN echo typed");
  await page.keyboard.press("Control+Enter");
  await expect(page).toHaveURL(/\/admin\/builds\/bld_/);
  await expect(page.locator("article.open .badge").first()).toHaveText("succeeded", { timeout: 150_000 });

  await page.keyboard.press("k");
  await page.keyboard.press("j");
  const row = page.locator("[data-row]:focus");
  await expect(row).toHaveCount(1);
  await page.keyboard.press("Enter");
  await page.keyboard.press("/");
  await expect(page.locator("input:focus")).toHaveCount(1);
});

test("everything fits a phone, and a wide screen", async ({ page, request }) => {
  const { id } = await made(request, HOSTILE);
  await ended(request, id);
  await signIn(page);
  const sizes = [[380, 780], ...(ALL ? ([[1600, 1000]] as const) : [])] as const;
  for (const [width, height] of sizes) {
    await page.setViewportSize({ width, height });
    for (const [path, name] of [
      ["/admin/templates", "templates"],
      ["/admin/builds", "builds"],
      [`/admin/builds/${id}`, "build"],
      ["/admin/templates?create", "create"],
    ] as const) {
      await page.goto(path);
      await expect(page.getByRole("heading", { name: "Templates", level: 1, includeHidden: true })).toBeAttached();
      if (name === "build") await expect(page.getByRole("log", { name: "Lines" }).getByText("end of it", { exact: true })).toBeVisible();
      await fits(page);
      await judge(page, `${name}-${width}`, ALL ? undefined : ["light"]);
    }
  }
});

test("a session that ends in mid-page keeps the page and what was typed", async ({ page, context }) => {
  await signIn(page);
  await page.getByRole("button", { name: "New template" }).click();
  await page.getByLabel("Name", { exact: true }).fill("half-typed");
  await context.clearCookies();
  // Should something that the page asks by itself have noticed it before, the button is beneath the sign-in already.
  await page.getByRole("button", { name: "Build template", includeHidden: true }).dispatchEvent("click");
  await expect(page.getByRole("heading", { name: "Your session ended" })).toBeVisible();
  await page.getByLabel("API key").fill(KEY);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByLabel("Name", { exact: true })).toHaveValue("half-typed");
});
