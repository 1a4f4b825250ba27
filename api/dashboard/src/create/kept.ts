// What was typed into the dialog last, until it becomes a build: closing the dialog loses nothing, and neither does
// taking over a previous build, which puts aside what stood there.

import { Repeats } from "../api/repeats";
import { type Draft, EMPTY, isTouched } from "./draft";

export interface Desk {
  readonly draft: Draft;
  /** What stood there before a build was taken over. */
  readonly aside?: Draft;
}

/** The desk with a previous build's draft on it. */
export function takenOver(desk: Desk, draft: Draft): Desk {
  return isTouched(desk.draft) && !isSame(desk.draft, draft) ? { draft, aside: desk.draft } : { ...desk, draft };
}

/** What was put aside comes back, and what stands there goes aside. */
export function swapped(desk: Desk): Desk {
  return desk.aside === undefined ? desk : { draft: desk.aside, aside: isTouched(desk.draft) ? desk.draft : undefined };
}

function isSame(one: Draft, other: Draft): boolean {
  return (Object.keys(EMPTY) as (keyof Draft)[]).every((key) => one[key] === other[key]);
}

class Kept {
  desk: Desk = { draft: EMPTY };
  readonly submissions = new Repeats();
}

export const kept = new Kept();
