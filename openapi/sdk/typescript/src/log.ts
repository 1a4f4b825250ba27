/** Following a log over server-sent events, through broken connections. */

import { EventSourceParserStream } from "eventsource-parser/stream";

import { passes, pause, refusal, Unreachable } from "./errors.js";
import type { Client } from "./rest/client/index.js";
import type { LogRecord } from "./rest/index.js";

/** Tries in a row without a record. */
const TRIES_MAX = 10;
/** Between two tries, at first and at most, in milliseconds. */
const PAUSES = [200, 5000] as const;
/** A silent log sends a comment more often than this, in milliseconds. */
const SILENCE_MAX = 60_000;

/**
 * A build's log after the record `after` as it is written: each record once, in order, up to the one with `end`.
 *
 * Throws `Refused` when the key may not read this log, `Unreachable` after ten tries in a row without a record.
 */
export async function* follow(client: Client, id: string, after = 0): AsyncGenerator<LogRecord, void, void> {
  for (let tries = 1; ; tries++) {
    let broken = "the stream ended before the log";
    try {
      for await (const record of stream(client, id, after)) {
        if (record === undefined) return;
        after = record.seq;
        tries = 0;
        yield record;
        if (record.end) return;
      }
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      broken = error.message;
    }
    if (tries >= TRIES_MAX) throw new Unreachable(`the log could not be read in ${tries} tries: ${broken}`);
    await pause(Math.min(PAUSES[0] * 2 ** Math.max(tries - 1, 0), PAUSES[1]));
  }
}

/** The connection, but not the log, is over. */
class Broken extends Error {}

/** Records of one connection; `undefined` where the log has ended before. */
async function* stream(client: Client, id: string, after: number): AsyncGenerator<LogRecord | undefined> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), SILENCE_MAX);
  };
  alive();
  try {
    const { response, error } = await client.get({
      url: "/v1/admin/builds/{id}/logs/stream",
      path: { id },
      headers: { "Last-Event-ID": String(after) },
      security: [{ scheme: "bearer", type: "http" }],
      parseAs: "stream",
      signal: abort.signal,
    });
    if (response === undefined) throw new Broken(String(error));
    if (response.status === 204) return yield undefined;
    if (!response.ok) {
      const refused = refusal(response.status, error);
      throw passes(response.status) ? new Broken(refused.message) : refused;
    }
    if (response.body === null) throw new Broken("an answer without a body");
    const events = response.body
      .pipeThrough(new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
        transform(bytes, out) {
          alive();
          out.enqueue(bytes);
        },
      }))
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    const reader = events.getReader();
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      if (value.event === "error") throw new Broken(value.data);
      yield JSON.parse(value.data) as LogRecord;
    }
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function read<T>(reader: ReadableStreamDefaultReader<T>) {
  try {
    return await reader.read();
  } catch (error) {
    throw new Broken(String(error));
  }
}
