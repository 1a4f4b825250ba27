// The states of a build, with their words. A status is colour, icon and word, never colour alone.

import type { Build, BuildStatus } from "../api/types";

export const STATUSES: readonly BuildStatus[] = [
  "queued",
  "running",
  "cancelling",
  "succeeded",
  "failed",
  "cancelled",
];

/** Whether it goes on by itself. */
export function isActive(status: BuildStatus): boolean {
  return status === "queued" || status === "running" || status === "cancelling";
}

/** How long it took, or takes so far; since when it waits, for one that was not begun. */
export function elapsed(build: Build, now: number): number {
  const from = Date.parse(build.started_at ?? build.queued_at);
  const to = build.completed_at === undefined ? now : Date.parse(build.completed_at);
  return Math.max(0, to - from);
}

/** Steps that are behind it, for the bar and its words. */
export function done(build: Build): number {
  if (build.status === "succeeded") return build.total_steps;
  // The step that was started last is not over yet.
  return Math.max(0, Math.min(build.total_steps, build.current_step - 1));
}
