/**
 * Following a log over NATS: what was before comes from REST, and both are joined by `seq`.
 *
 * Subscribe, read REST until a page is empty, then take what NATS tells. Read REST again whenever a `seq` is missing, or
 * when nothing came for a while: NATS tells a subscriber only what comes after its subscription, and keeps nothing for
 * one that was away. What REST leaves out is lost, and the log goes on after it. Any connection of the NATS clients for
 * JavaScript will do; Node.js's is in `@nats-io/transport-node`, to which `token` is the API key.
 */

import type { Msg, NatsConnection } from "@nats-io/transport-node";

import { OvenbirdError, passes, pause, refusal, Unreachable } from "./errors.js";
import type { Client } from "./rest/client/index.js";
import { buildLogs, type LogRecord } from "./rest/index.js";

/** The last message may be lost with its connection: so silence is not trusted for more than this, in milliseconds. */
const SILENCE_MAX = 3000;
const PAUSE = 200;
/** Failed or fruitless reads in a row. */
const TRIES_MAX = 20;

/**
 * A build's log after the record `after` as it is written: each record once, in order, up to the one with `end`. A record
 * whose `seq` is not the next one comes after records that are lost; where the last line is, the end has its `seq`.
 * There is nothing, and no `end`, where the log has ended at `after`.
 *
 * Throws `Refused` when the key may not read this log, `Unreachable` when REST does not answer.
 */
export async function* followLive(
  client: Client,
  connection: NatsConnection,
  id: string,
  after = 0,
): AsyncGenerator<LogRecord, void, void> {
  const subscription = connection.subscribe(`ovenbird.logs.${id}`);
  try {
    await connection.flush();
    const messages = subscription[Symbol.asyncIterator]();
    const began = after;
    let next: Promise<IteratorResult<Msg>> | undefined;
    let waiting: LogRecord[] = [];
    let isBehind = true;
    let isStored = false;
    let tries = 0;
    const count = (last: string) => {
      if (++tries === TRIES_MAX) throw new Unreachable(`the log could not be read in ${tries} tries: ${last}`);
    };
    for (;;) {
      for (const record of waiting) {
        // What is stored has a hole only where records are lost.
        if (record.seq === after + 1 || (isStored && record.seq > after)) {
          after = record.seq;
          tries = 0;
          yield record;
          if (record.end) return;
        } else if (record.seq > after) {
          // What is dropped here REST tells again.
          isBehind = true;
          count(`record ${after + 1} is missing`);
          break;
        } else if (isStored && record.end) {
          // The log has ended here: who came from here has its end, others a line in its place, which is lost.
          if (after > began) yield record;
          return;
        }
      }
      waiting = [];
      if (isBehind) {
        const { data, error, response } = await page(client, id, after);
        if (data) {
          waiting = data.records.filter((record) => record.seq > after || record.end);
          isBehind = isStored = waiting.length > 0;
        } else if (response && !passes(response.status)) {
          throw refusal(response.status, error);
        } else {
          count(String(error));
        }
        // The API is away, or the missing record is on its way to where REST reads.
        if (tries > 0 && waiting.length === 0) await pause(PAUSE);
        continue;
      }
      next ??= messages.next();
      const message = await Promise.race([next, pause(SILENCE_MAX)]);
      if (message === undefined) {
        isBehind = true;
        continue;
      }
      next = undefined;
      if (message.done) throw new OvenbirdError("the subscription was closed");
      isStored = false;
      waiting = message.value.json<{ records: LogRecord[] }>().records;
    }
  } finally {
    subscription.unsubscribe();
  }
}

/** What REST has of the log from `after` on, or, should it have ended before, from the next number on. */
async function page(client: Client, id: string, after: number) {
  const read = (from_seq: number) => buildLogs({ client, path: { id }, query: { from_seq } });
  const records = await read(Math.max(after, 1));
  return after > 0 && records.data?.records.length === 0 ? read(after + 1) : records;
}
