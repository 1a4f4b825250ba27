// What was typed into the dialog last, until it becomes a build: closing the dialog loses nothing.

import { type Draft, EMPTY } from "./draft";

class Kept {
  draft: Draft = EMPTY;
}

export const kept = new Kept();
