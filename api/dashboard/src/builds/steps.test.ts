import { expect, test } from "vitest";
import type { Build } from "../api/types";
import { failed, recipeCommands, recipeText, steps } from "./steps";

const entry = (step: number, ok = true) =>
  ({ step, phase: "step", cmd: `RUN ${step}`, stdout: "", stderr: "", ok, elapsed_ms: 5, cached: false }) as const;

function build(more: Partial<Build>): Build {
  return { recipe: ["RUN 1", "RUN 2", "RUN 3"], status: "running", attempt: 1, current_step: 0, total_steps: 3, ...more } as Build;
}

const told = (it: Build) => steps(it).map((step) => `${step.number} ${step.state}`);

test("a running build shows what is done, what runs and what is to come", () => {
  expect(told(build({ logs: [entry(1)], current_step: 2 }))).toEqual(["1 succeeded", "2 running", "3 waiting"]);
  expect(told(build({ status: "queued" }))).toEqual(["1 waiting", "2 waiting", "3 waiting"]);
});

test("what comes before the steps stands before them", () => {
  const boot = { ...entry(0), phase: "boot", cmd: "boot" } as const;
  expect(told(build({ logs: [boot, entry(1)], current_step: 1 }))).toEqual(["0 succeeded", "1 succeeded", "2 waiting", "3 waiting"]);
});

test("a failed build shows the failing step and what was not run", () => {
  const it = build({ status: "failed", logs: [entry(1), entry(2, false)], current_step: 2 });
  expect(told(it)).toEqual(["1 succeeded", "2 failed", "3 skipped"]);
  expect(failed(it)?.number).toBe(2);
});

test("a build that failed without a step's word is found by its reason", () => {
  const it = build({ status: "failed", reason: { code: "step_failed", message: "", step: 2 }, current_step: 2 });
  expect(failed(it)?.number).toBe(2);
  expect(failed(build({ status: "failed", reason: { code: "lost", message: "" } }))).toBeUndefined();
});

test("recipes are read as the api numbers them", () => {
  const recipe = ["# comment", "RUN a \\", "  # inner", "  b", "", "ENV A=1\nRUN c", { type: "RUN", args: ["d", "e"] }];
  expect(recipeCommands(recipe)).toEqual(["RUN a   b", "ENV A=1", "RUN c", "RUN d e"]);
  expect(recipeText(["RUN a", { type: "RUN", args: ["d"] }])).toBe('RUN a\n{"type":"RUN","args":["d"]}');
});

test("a recipe of nothing but backslashes and blanks is read at once", () => {
  const began = process.cpuUsage();
  const slashes = "\\".repeat(500_001);
  expect(recipeCommands([`${slashes}x${slashes}${" ".repeat(500_000)}`, "b"])).toEqual([`${slashes}x${slashes.slice(1)}b`]);
  expect(recipeCommands([`a ${slashes.slice(1)}`, "b"]).length).toBe(2);
  expect(process.cpuUsage(began).user / 1000).toBeLessThan(1000);
});
