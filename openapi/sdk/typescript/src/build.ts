/** Waiting for a build. */

import { Late, passes, pause, refusal } from "./errors.js";
import type { Client } from "./rest/client/index.js";
import { type Build, buildGet } from "./rest/index.js";

const OVER = ["succeeded", "failed", "cancelled"];
/** Between two looks, at first and at most, in milliseconds. */
const PAUSES = [200, 2000] as const;

/** The build once it has succeeded, failed or been cancelled; throws `Late` when it has not within so many seconds. */
export async function buildEnd(client: Client, id: string, withinSeconds = 600): Promise<Build> {
  const deadline = Date.now() + withinSeconds * 1000;
  let wait: number = PAUSES[0];
  for (;;) {
    const { data, error, response } = await buildGet({ client, path: { id } });
    if (data && OVER.includes(data.status)) return data;
    // Without a response the API was not reached: the next look may find it.
    if (error && response && !passes(response.status)) throw refusal(response.status, error);
    if (Date.now() + wait > deadline) {
      throw new Late(`build ${id} did not end within ${withinSeconds} s`);
    }
    await pause(wait);
    wait = Math.min(wait * 2, PAUSES[1]);
  }
}
