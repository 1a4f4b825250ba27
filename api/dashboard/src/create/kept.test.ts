import { expect, test } from "vitest";
import { EMPTY } from "./draft";
import { swapped, takenOver } from "./kept";

const named = (name: string) => ({ ...EMPTY, name });

test("what was half written is put aside for a previous build, and comes back", () => {
  const desk = takenOver({ draft: named("half") }, named("previous"));
  expect(desk).toEqual({ draft: named("previous"), aside: named("half") });
  expect(swapped(desk)).toEqual({ draft: named("half"), aside: named("previous") });
  expect(swapped(swapped(desk))).toEqual(desk);
});

test("an empty draft is not put aside, and pushes nothing out", () => {
  expect(takenOver({ draft: EMPTY }, named("previous")).aside).toBeUndefined();
  expect(takenOver({ draft: EMPTY, aside: named("half") }, named("previous")).aside).toEqual(named("half"));
  expect(swapped({ draft: EMPTY, aside: named("half") })).toEqual({ draft: named("half"), aside: undefined });
});

test("the same build taken over twice does not push out what was written before", () => {
  const once = takenOver({ draft: named("half") }, named("previous"));
  expect(takenOver(once, named("previous"))).toEqual(once);
});
