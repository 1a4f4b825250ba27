// A build that is being written: what is typed, the body that it becomes, and which problem belongs to which field.
// Pure. What is typed stays text until it is sent, so that nothing is lost by being half right.

import type { Build, BuildCreate, Problem } from "../api/types";
import { recipeText } from "../builds/steps";
import { withoutEnding } from "../text/end";

export interface Draft {
  readonly name: string;
  readonly tag: string;
  readonly base: string;
  readonly recipe: string;
  readonly healthcheck: string;
  readonly vcpus: string;
  readonly memory: string;
  readonly disk: string;
}

export const EMPTY: Draft = {
  name: "",
  tag: "latest",
  base: "minimal",
  recipe: "",
  healthcheck: "",
  vcpus: "1",
  memory: "512",
  disk: "",
};

/** The fields as the api names them, in the order of the page. */
export const FIELDS = ["name", "tag", "base_template", "recipe", "healthcheck", "vcpus", "memory_mb", "disk_mb"] as const;
export type Field = (typeof FIELDS)[number];

/** What the api is asked. A number that is none is sent as it was typed, and the api says what is wrong with it. */
export function bodyOf(draft: Draft): BuildCreate {
  const number = (text: string) => (/^\d+$/.test(text.trim()) ? Number(text.trim()) : (text.trim() as unknown as number));
  const healthcheck = draft.healthcheck.trim();
  return {
    name: draft.name.trim(),
    tag: draft.tag.trim() || "latest",
    base_template: draft.base.trim() || "minimal",
    // One entry a line: the api's line numbers are then those of the editor.
    recipe: withoutEnding(draft.recipe, "\n").split("\n"),
    ...(healthcheck === "" ? {} : { healthcheck }),
    vcpus: number(draft.vcpus),
    memory_mb: number(draft.memory),
    ...(draft.disk.trim() === "" ? {} : { disk_mb: number(draft.disk) }),
    lane: "default",
    skip_hooks: false,
  };
}

/** A draft like a build that there was. */
export function draftOf(build: Build): Draft {
  return {
    name: build.name,
    tag: build.tag,
    base: build.base_template,
    recipe: recipeText(build.recipe),
    healthcheck: build.healthcheck ?? "",
    vcpus: String(build.vcpus),
    memory: String(build.memory_mb),
    disk: build.disk_mb === undefined ? "" : String(build.disk_mb),
  };
}

/** Whether something was typed that would be missed. */
export function isTouched(draft: Draft): boolean {
  return (Object.keys(EMPTY) as (keyof Draft)[]).some((key) => draft[key] !== EMPTY[key]);
}

/** The field that a problem belongs to; undefined for the whole. `recipe[2].timeout` belongs to the recipe. */
export function fieldOf(problem: Problem): Field | undefined {
  const name = /^[a-z_]+/.exec(problem.field)?.[0];
  return FIELDS.find((field) => field === name);
}

/** The problems of a field. */
export function problemsOf(problems: readonly Problem[], field: Field | undefined): Problem[] {
  return problems.filter((problem) => fieldOf(problem) === field);
}

export interface Diagnostic {
  readonly from: number;
  readonly to: number;
  readonly message: string;
}

/** Problems of a text at their words: from the place that is told to the end of that word. */
export function diagnostics(text: string, problems: readonly Problem[]): Diagnostic[] {
  const lines = text.split("\n");
  const starts: number[] = [];
  let start = 0;
  for (const line of lines) {
    starts.push(start);
    start += line.length + 1;
  }
  return problems.map((problem) => {
    const index = Math.min(Math.max(0, (problem.line ?? 1) - 1), lines.length - 1);
    const line = lines[index] ?? "";
    // The api counts characters, a string of JavaScript counts UTF-16 units.
    const before = [...line].slice(0, Math.max(0, (problem.column ?? 1) - 1)).join("").length;
    const word = /^\S+/.exec(line.slice(before))?.[0].length ?? 0;
    const at = starts[index] ?? 0;
    const from = at + Math.min(before, line.length);
    const hint = problem.hint === undefined ? "" : ` (${problem.hint})`;
    return { from, to: from + word, message: `${problem.message}${hint}` };
  });
}
