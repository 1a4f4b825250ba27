// What every browser test needs: a page that fails on any breach of the Content-Security-Policy, a signed-in session,
// builds made through the API, a look for faults of accessibility, and pictures.
import { readFileSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import { type APIRequestContext, type Page, test as base, expect } from "@playwright/test";

function needed(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: these tests are started by \`cargo dev test dashboard\``);
  return value;
}

export const KEY = needed("OVENBIRD_KEY");
/** Also what takes minutes. */
export const ALL = process.env.OVENBIRD_TEST_ALL !== undefined;
const PICTURES = process.env.OVENBIRD_SCREENSHOTS ?? "screenshots";
const BEARER = { authorization: `Bearer ${KEY}` };

const paths = Object.keys(
  (JSON.parse(readFileSync(new URL("../../../openapi/openapi.json", import.meta.url), "utf8")) as { paths: object }).paths,
);
/** Whether the api has an operation at this path; the page shows no button for what is not there. */
export const has = (path: string): boolean => paths.includes(path);

export const test = base.extend<{ page: Page }>({
  page: async ({ page }, use) => {
    const broken: string[] = [];
    page.on("console", (message) => {
      if (/Content Security Policy|Content-Security-Policy/.test(message.text())) broken.push(message.text());
    });
    page.on("pageerror", (error) => broken.push(String(error)));
    page.on("dialog", (dialog) => broken.push(`a dialog: ${dialog.message()}`));
    await use(page);
    expect(broken).toEqual([]);
  },
});
export { expect };

export async function signIn(page: Page, path = "/admin/templates"): Promise<void> {
  await page.goto(path);
  await page.getByLabel("API key").fill(KEY);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("heading", { name: "Templates", level: 1 })).toBeVisible();
}

export interface Made {
  readonly id: string;
}

/** The build of this name: several tests may look at one, since each boots a machine. */
export async function made(request: APIRequestContext, body: { name: string; recipe: string[] }): Promise<Made> {
  const answer = await request.get(`/v1/admin/builds?name=${body.name}&limit=1`, { headers: BEARER });
  const found = ((await answer.json()) as { items: Made[] }).items[0];
  return found ?? (await submit(request, body));
}

export async function submit(request: APIRequestContext, body: object): Promise<Made> {
  const answer = await request.post("/v1/admin/builds", { headers: BEARER, data: body });
  expect(answer.status(), await answer.text()).toBe(201);
  return (await answer.json()) as Made;
}

export async function ended(request: APIRequestContext, id: string): Promise<{ status: string }> {
  let build = { status: "" };
  await expect
    .poll(
      async () => {
        const answer = await request.get(`/v1/admin/builds/${id}`, { headers: BEARER });
        build = (await answer.json()) as { status: string };
        return ["succeeded", "failed", "cancelled"].includes(build.status);
      },
      { timeout: 200_000, intervals: [500] },
    )
    .toBe(true);
  return build;
}

/** The sandboxes that there are, by any status. */
export async function sandboxes(request: APIRequestContext): Promise<{ id: string; status: string }[]> {
  const answer = await request.get("/v1/sandboxes?limit=200", { headers: BEARER });
  expect(answer.status(), await answer.text()).toBe(200);
  return ((await answer.json()) as { items: { id: string; status: string }[] }).items;
}

/** Waits until the build's log has this line. */
export async function logged(request: APIRequestContext, id: string, line: string): Promise<void> {
  const lines = async () => {
    const answer = await request.get(`/v1/admin/builds/${id}/logs?limit=1000`, { headers: BEARER });
    return ((await answer.json()) as { records: { text?: string }[] }).records.map((record) => record.text);
  };
  await expect.poll(lines, { timeout: 150_000, intervals: [500] }).toContain(line);
}

/** Milliseconds from the first line of step 1 to the one with this text, which is about the `near`th, as their writer timed them. */
export async function written(request: APIRequestContext, id: string, near: number, text: string): Promise<number> {
  const records = async (query: string) => {
    const answer = await request.get(`/v1/admin/builds/${id}/logs?${query}`, { headers: BEARER });
    expect(answer.status(), await answer.text()).toBe(200);
    return ((await answer.json()) as { records: { text?: string; ts?: string; step?: number }[] }).records;
  };
  const [first, last] = [await records("from_seq=1&limit=100"), await records(`from_seq=${near}&limit=1000`)];
  const at = (record: { ts?: string } | undefined) => Date.parse(record?.ts ?? "");
  const taken = at(last.find((record) => record.text === text)) - at(first.find((record) => record.step === 1 && record.text === "1"));
  expect(taken).toBeGreaterThan(0);
  return taken;
}

const LIGHTS = ["light", "dark"] as const;

/** No serious fault, and a picture in each light. */
export async function judge(page: Page, name: string, lights: readonly (typeof LIGHTS)[number][] = LIGHTS): Promise<void> {
  for (const colorScheme of lights) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await new AxeBuilder({ page }).analyze();
    const serious = violations
      .filter((fault) => fault.impact === "serious" || fault.impact === "critical")
      .map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
    expect(serious, `${name} in ${colorScheme}`).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/${name}-${colorScheme}.png` });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** Nothing is wider than the page. */
export async function fits(page: Page): Promise<void> {
  const beyond = await page.evaluate(() => {
    const root = document.scrollingElement;
    const main = document.getElementById("content");
    return Math.max(
      (root?.scrollWidth ?? 0) - (root?.clientWidth ?? 0),
      (main?.scrollWidth ?? 0) - (main?.clientWidth ?? 0),
    );
  });
  expect(beyond).toBe(0);
}
