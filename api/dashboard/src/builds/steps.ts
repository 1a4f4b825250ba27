// The steps of a build as its row shows them: what was done already, from the build's own list; what is being done;
// and what is still to do, from the recipe. Pure.

import type { Build, RecipeEntry, StepEntry, StepPhase } from "../api/types";
import { ending } from "../text/end";
import { isActive } from "./status";

export type StepState = "succeeded" | "failed" | "running" | "waiting" | "skipped";

export interface Step {
  /** Unique within the build, and the same from answer to answer. */
  readonly key: string;
  /** As its writer numbered it; 0 outside of the recipe. */
  readonly number: number;
  readonly phase: StepPhase;
  readonly command: string;
  readonly state: StepState;
  readonly entry?: StepEntry;
}

/** All steps, in the order in which they are done. */
export function steps(build: Build): Step[] {
  const entries = build.logs ?? [];
  const list: Step[] = entries.map((entry, index) => ({
    key: `done-${index}`,
    number: entry.step,
    phase: entry.phase,
    command: entry.cmd,
    state: entry.ok ? "succeeded" : "failed",
    entry,
  }));
  const told = new Set(entries.filter((entry) => entry.phase === "step").map((entry) => entry.step));
  const commands = recipeCommands(build.recipe);
  for (const [index, command] of commands.entries()) {
    const number = index + 1;
    if (told.has(number)) continue;
    list.push({ key: `step-${number}`, number, phase: "step", command, state: stateOf(build, number) });
  }
  return list;
}

/** The step that failed. */
export function failed(build: Build): Step | undefined {
  const list = steps(build);
  return list.find((step) => step.state === "failed") ?? list.find((step) => step.number === build.reason?.step && step.number > 0);
}

/** The steps of a recipe, one line each: comments left out, continuations joined, as the api numbers them. */
export function recipeCommands(recipe: readonly RecipeEntry[]): string[] {
  const commands: string[] = [];
  let open = "";
  for (const entry of recipe) {
    if (typeof entry !== "string") {
      commands.push(objectCommand(entry));
      continue;
    }
    for (const line of entry.split(/\r?\n/)) {
      if (/^\s*(#|$)/.test(line)) continue;
      const text = line.trimEnd();
      if (ending(text, "\\") % 2 === 1) {
        open += text.slice(0, -1);
        continue;
      }
      commands.push((open + line).trim());
      open = "";
    }
  }
  if (open.trim() !== "") commands.push(open.trim());
  return commands;
}

/** The recipe as text, one step a line, as the editor shows it. */
export function recipeText(recipe: readonly RecipeEntry[]): string {
  return recipe.map((entry) => (typeof entry === "string" ? entry : JSON.stringify(entry))).join("\n");
}

function objectCommand(step: Exclude<RecipeEntry, string>): string {
  return [step.type, ...(step.args ?? [])].join(" ");
}

function stateOf(build: Build, number: number): StepState {
  if (!isActive(build.status)) return build.reason?.step === number && build.status === "failed" ? "failed" : "skipped";
  return build.status !== "queued" && build.current_step === number ? "running" : "waiting";
}
