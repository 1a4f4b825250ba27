import { expect, test } from "vitest";
import type { Build, Problem } from "../api/types";
import { EMPTY, bodyOf, diagnostics, draftOf, fieldOf, isTouched, problemsOf } from "./draft";

test("a draft becomes a body with one recipe entry a line", () => {
  const draft = { ...EMPTY, name: " web ", recipe: "# a\nRUN b \\\n  c\n\n", healthcheck: " true ", disk: "2048" };
  expect(bodyOf(draft)).toEqual({
    name: "web",
    tag: "latest",
    base_template: "minimal",
    recipe: ["# a", "RUN b \\", "  c"],
    healthcheck: "true",
    vcpus: 1,
    memory_mb: 512,
    disk_mb: 2048,
    lane: "default",
    skip_hooks: false,
  });
});

test("what is no number is sent as it is, for the api to name", () => {
  expect(bodyOf({ ...EMPTY, vcpus: "two", memory: "1.5" })).toMatchObject({ vcpus: "two", memory_mb: "1.5" });
});

test("a previous build becomes the draft that would make it again", () => {
  const build = {
    name: "web", tag: "v1", base_template: "minimal", recipe: ["RUN a", "RUN b"], healthcheck: "true",
    vcpus: 2, memory_mb: 1024, disk_mb: 4096,
  } as unknown as Build;
  const draft = draftOf(build);
  expect(draft.recipe).toBe("RUN a\nRUN b");
  expect(bodyOf(draft)).toMatchObject({ name: "web", tag: "v1", vcpus: 2, memory_mb: 1024, disk_mb: 4096 });
  expect([isTouched(draft), isTouched(EMPTY)]).toEqual([true, false]);
});

test("problems land on their field, however deep they point", () => {
  const problem = (field: string): Problem => ({ field, code: "x", message: "y" });
  expect(["recipe[2].timeout", "recipe.timeout", "vcpus", "lane", "body"].map((field) => fieldOf(problem(field)))).toEqual([
    "recipe", "recipe", "vcpus", undefined, undefined,
  ]);
  const list = [problem("name"), problem("lane")];
  expect([problemsOf(list, "name").length, problemsOf(list, undefined).length]).toEqual([1, 1]);
});

test("a diagnostic stands under its word, also behind characters of two units", () => {
  const text = "RUN ok\nRUN 🧱 --bad x\n";
  const at = (line: number, column: number) => {
    const [found] = diagnostics(text, [{ field: "recipe", code: "x", message: "no", hint: "yes", line, column }]);
    return found === undefined ? undefined : [text.slice(found.from, found.to), found.message];
  };
  expect(at(2, 7)).toEqual(["--bad", "no (yes)"]);
  expect(at(1, 1)).toEqual(["RUN", "no (yes)"]);
  // Behind the end of the line, and behind the end of everything.
  expect(at(1, 99)?.[0]).toBe("");
  expect(at(99, 1)?.[0]).toBe("");
});

test("line ends at the end of a recipe are left out, however many there are", () => {
  const began = process.cpuUsage();
  expect(bodyOf({ ...EMPTY, recipe: `RUN a${"\n".repeat(1_000_000)}` }).recipe).toEqual(["RUN a"]);
  expect(bodyOf({ ...EMPTY, recipe: `${"\n".repeat(200_000)}RUN a` }).recipe.length).toBe(200_001);
  expect(process.cpuUsage(began).user / 1000).toBeLessThan(1000);
});
