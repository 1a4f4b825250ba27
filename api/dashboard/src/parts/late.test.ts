import { expect, test } from "vitest";
import { late } from "./late";

/** Fails so often, then has its number. */
function flaky(failures: number) {
  let asked = 0;
  return () => (++asked <= failures ? Promise.reject(new Error(`attempt ${asked}`)) : Promise.resolve(asked));
}

test("what breaks off is asked for again, as often as there are pauses", async () => {
  await expect(late(flaky(0), [1, 1])).resolves.toBe(1);
  await expect(late(flaky(2), [1, 1])).resolves.toBe(3);
  await expect(late(flaky(3), [1, 1])).rejects.toThrow("attempt 3");
});

test("what fails before anybody waits for it is told to who comes later", async () => {
  const loading = late(flaky(1), []);
  await new Promise((resolve) => setTimeout(resolve, 10));
  await expect(loading).rejects.toThrow("attempt 1");
});
