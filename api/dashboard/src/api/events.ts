// Server-sent events over `fetch`, which unlike `EventSource` tells why a connection was refused. It reads until
// somebody stops it: it reconnects from where the reader stands, waits longer and longer while the api is away, waits
// for the next sign-in when the session is over, and takes a connection for dead on which not even a heartbeat arrives.
// What an event means is its reader's business.

import { createParser } from "eventsource-parser";
import { backoff } from "./backoff";
import { Failure, failureOf } from "./failure";
import { type SignIns, signIns } from "./signins";

/** The api sends a comment every 15 s on a silent stream. */
const SILENCE_MS = 45_000;
/** What waits to be read is read in bites of this length: a whole backlog in one go would hold up the page. */
const BITE_MS = 10;

export interface Event {
  readonly type: string;
  readonly data: string;
}

export type Connection =
  | { readonly state: "connecting" }
  | { readonly state: "live" }
  /** Broken; the next try begins at `until`. */
  | { readonly state: "waiting"; readonly until: number; readonly why: string }
  /** The session is over; it goes on once somebody has signed in. */
  | { readonly state: "signed-out"; readonly failure: Failure }
  /** Everything was read. */
  | { readonly state: "over" }
  /** It makes no sense to try again. */
  | { readonly state: "refused"; readonly failure: Failure };

export type Verdict = "more" | "again" | "over";

export interface Reader {
  /** The path to read now. */
  path(): string;
  /** Takes the events that came together: go on, connect again at once (from the new `path`), or stop. */
  take(events: readonly Event[]): Verdict;
  /** What the connection does. */
  said(connection: Connection): void;
}

export interface Outside {
  readonly fetch: typeof fetch;
  readonly now: () => number;
  readonly random: () => number;
  /** Resolves after `milliseconds`, or at once when `signal` is aborted. */
  readonly sleep: (milliseconds: number, signal: AbortSignal) => Promise<void>;
  /** Lets the page do what waits, drawing and clicks. */
  readonly breathe: () => Promise<void>;
  readonly signIns: Pick<SignIns, "count" | "after">;
  /** Calls `told` when the browser learns that there is no network; the returned function ends that. */
  readonly onOffline: (told: () => void) => () => void;
}

export const OUTSIDE: Outside = {
  // A message and no timer: those are held back in hidden pages.
  breathe: () =>
    new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    }),
  fetch: (input, init) => fetch(input, init),
  now: () => Date.now(),
  random: () => Math.random(),
  signIns,
  onOffline: (told) => {
    window.addEventListener("offline", told);
    return () => window.removeEventListener("offline", told);
  },
  sleep: (milliseconds, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      signal.addEventListener("abort", done, { once: true });
      // A network that came back need not be waited for.
      window.addEventListener("online", done, { once: true });
    }),
};

/** Reads until the reader has everything, the api refuses, or `signal` is aborted. */
export async function follow(reader: Reader, signal: AbortSignal, outside: Outside = OUTSIDE): Promise<void> {
  let tries = 0;
  while (!signal.aborted) {
    reader.said({ state: "connecting" });
    const before = outside.signIns.count;
    const outcome = await connect(reader, signal, outside, () => (tries = 0));
    if (signal.aborted) return;
    if (outcome === "over") return reader.said({ state: "over" });
    if (outcome === "again") {
      // A reader that asks again and again without getting on must not make a storm.
      tries += 1;
      if (tries === 1) continue;
    } else if (outcome instanceof Failure && outcome.isSignedOut && outside.signIns.count === before) {
      reader.said({ state: "signed-out", failure: outcome });
      await outside.signIns.after(before, signal);
      continue;
    } else if (outcome instanceof Failure && outcome.isSignedOut) {
      // The old session was refused, and somebody has signed in meanwhile.
      tries += 1;
    } else if (outcome instanceof Failure && !outcome.mayPass) {
      return reader.said({ state: "refused", failure: outcome });
    } else {
      tries += 1;
    }
    const wait = backoff(tries, outside.random());
    const why = outcome instanceof Failure ? outcome.message : "the connection broke";
    reader.said({ state: "waiting", until: outside.now() + wait, why });
    await outside.sleep(wait, signal);
  }
}

async function connect(
  reader: Reader,
  signal: AbortSignal,
  outside: Outside,
  gotOn: () => void,
): Promise<Verdict | "broken" | Failure> {
  const ending = new AbortController();
  const end = () => ending.abort();
  signal.addEventListener("abort", end, { once: true });
  let silence = setTimeout(end, SILENCE_MS);
  // A connection whose network went is only silent, and would pass for live until then.
  const unlisten = outside.onOffline(end);
  try {
    const response = await outside.fetch(reader.path(), {
      headers: { accept: "text/event-stream" },
      credentials: "same-origin",
      cache: "no-store",
      signal: ending.signal,
    });
    if (response.status === 204) return "over";
    if (!response.ok || response.body === null) return await failureOf(response);
    reader.said({ state: "live" });
    let events: Event[] = [];
    const parser = createParser({
      onEvent: (event) => events.push({ type: event.event ?? "message", data: event.data }),
    });
    const decoder = new TextDecoder();
    const bytes = response.body.getReader();
    let since = outside.now();
    for (;;) {
      if (outside.now() - since >= BITE_MS) {
        await outside.breathe();
        since = outside.now();
      }
      const { done, value } = await bytes.read();
      if (done) return "broken";
      clearTimeout(silence);
      silence = setTimeout(end, SILENCE_MS);
      parser.feed(decoder.decode(value, { stream: true }));
      if (events.length === 0) continue;
      const taken = events;
      events = [];
      const verdict = reader.take(taken);
      if (verdict !== "more") return verdict;
      gotOn();
    }
  } catch (error) {
    return error instanceof Failure ? error : "broken";
  } finally {
    clearTimeout(silence);
    unlisten();
    signal.removeEventListener("abort", end);
    ending.abort();
  }
}
