import { expect, test } from "vitest";
import { Trial } from "./trial";

/** A trial whose api answers when it is told to. */
function stage(remove: (id: string) => Promise<void> = () => Promise.resolve()) {
  const asked: { answer: (id: string) => void; refuse: (error: Error) => void }[] = [];
  const removed: string[] = [];
  const left: [string, unknown][] = [];
  const trial = new Trial<{ id: string }>({
    create: () =>
      new Promise((resolve, reject) => asked.push({ answer: (id) => resolve({ id }), refuse: reject })),
    remove: (id) => {
      removed.push(id);
      return remove(id);
    },
    left: (id, error) => left.push([id, error]),
  });
  return { trial, asked, removed, left };
}

test("a sandbox is deleted once, when its panel goes", async () => {
  const { trial, asked, removed } = stage();
  const started = trial.start();
  asked[0]?.answer("sbx_1");
  expect(await started).toEqual({ id: "sbx_1" });
  expect(removed).toEqual([]);
  trial.end();
  trial.end();
  expect(removed).toEqual(["sbx_1"]);
});

test("a sandbox that comes after its panel went is deleted as it comes", async () => {
  const { trial, asked, removed } = stage();
  const started = trial.start();
  trial.end();
  expect(removed).toEqual([]);
  asked[0]?.answer("sbx_1");
  expect(await started).toBeUndefined();
  expect(removed).toEqual(["sbx_1"]);
});

test("a refusal is the panel's to show, and nobody's when the panel went", async () => {
  const { trial, asked, removed } = stage();
  const first = trial.start();
  asked[0]?.refuse(new Error("no room"));
  await expect(first).rejects.toThrow("no room");
  const second = trial.start();
  trial.end();
  asked[1]?.refuse(new Error("no room"));
  expect(await second).toBeUndefined();
  expect(removed).toEqual([]);
});

test("a sandbox that was not deleted is told", async () => {
  const refusal = new Error("the host is away");
  const { trial, asked, left } = stage(() => Promise.reject(refusal));
  const started = trial.start();
  asked[0]?.answer("sbx_1");
  await started;
  trial.end();
  await expect.poll(() => left).toEqual([["sbx_1", refusal]]);
});
