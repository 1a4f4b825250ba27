import { afterEach, expect, test, vi } from "vitest";
import { backoff } from "./backoff";
import { type Connection, type Event, type Outside, type Reader, type Verdict, follow } from "./events";
import { SignIns } from "./signins";

type Answer = { status?: number; chunks?: string[]; body?: string; breaks?: boolean; stays?: boolean; meanwhile?: "signed in" };

/** A scripted api, and a reader that notes everything. */
function stage(answers: (Answer | "network error")[], take: (events: readonly Event[]) => Verdict = () => "more") {
  const said: Connection[] = [];
  const paths: string[] = [];
  const taken: string[] = [];
  const waits: number[] = [];
  const ending = new AbortController();
  const signIns = new SignIns();
  const listeners = new Set<() => void>();
  const outside: Outside = {
    now: () => 1000,
    random: () => 1,
    breathe: () => Promise.resolve(),
    signIns,
    onOffline: (told) => {
      listeners.add(told);
      return () => listeners.delete(told);
    },
    sleep: (milliseconds) => {
      waits.push(milliseconds);
      return Promise.resolve();
    },
    fetch: (path, init) => {
      paths.push(String(path));
      const answer = answers.shift();
      if (typeof answer === "object" && answer.meanwhile === "signed in") signIns.note();
      if (answer === undefined) {
        ending.abort();
        return Promise.reject(new TypeError("nothing more is scripted"));
      }
      if (answer === "network error") return Promise.reject(new TypeError("Failed to fetch"));
      const { status = 200, chunks = [], body } = answer;
      if (status === 204) return Promise.resolve(new Response(null, { status }));
      if (body !== undefined) return Promise.resolve(new Response(body, { status }));
      const encoder = new TextEncoder();
      const stream = new ReadableStream<Uint8Array>({
        start(controller) {
          for (const chunk of chunks) controller.enqueue(encoder.encode(chunk));
          if (answer.stays === true) init?.signal?.addEventListener("abort", () => controller.error(new TypeError("aborted")));
          else if (answer.breaks === true) controller.error(new TypeError("network error"));
          else controller.close();
        },
      });
      return Promise.resolve(new Response(stream, { status }));
    },
  };
  const reader: Reader = {
    path: () => `/stream?from_seq=${taken.length + 1}`,
    take: (events) => {
      const verdict = take(events);
      if (verdict !== "again") taken.push(...events.map((event) => event.data));
      return verdict;
    },
    said: (connection) => said.push(connection),
  };
  return { said, paths, taken, waits, signIns, listeners, ending, run: () => follow(reader, ending.signal, outside) };
}

const overAt = (last: string) => (events: readonly Event[]): Verdict =>
  events.some((event) => event.data === last) ? "over" : "more";

test("events are read in any cut, comments left out, to the reader's end", async () => {
  const it = stage([{ chunks: ["retry: 1000\n\nid: 1\nda", "ta: a\n\n: still here\n\nid: 2\ndata: b\n\n"] }], overAt("b"));
  await it.run();
  expect(it.taken).toEqual(["a", "b"]);
  expect(it.said.map((connection) => connection.state)).toEqual(["connecting", "live", "over"]);
});

test("a broken connection goes on from where the reader stands, and says how long it waits", async () => {
  const it = stage(
    [{ chunks: ["data: a\n\n"] }, "network error", "network error", { chunks: ["data: b\n\n"] }],
    overAt("b"),
  );
  await it.run();
  expect(it.paths).toEqual([1, 2, 2, 2].map((seq) => `/stream?from_seq=${seq}`));
  expect(it.waits).toEqual([1000, 2000, 4000]);
  expect(it.said[2]).toEqual({ state: "waiting", until: 2000, why: "the connection broke" });
});

test("a refusal that cannot pass ends it, one that can is tried again", async () => {
  const gone = JSON.stringify({ error: { code: "not_found", message: "bld_1 does not exist", details: [] } });
  const busy = JSON.stringify({ error: { code: "too_many_streams", message: "later", details: [] } });
  const it = stage([{ status: 429, body: busy }, { status: 502, body: "<html>" }, { status: 404, body: gone }]);
  await it.run();
  expect(it.waits.length).toBe(2);
  const last = it.said.at(-1);
  expect(last?.state === "refused" && [last.failure.code, last.failure.message]).toEqual([
    "not_found",
    "bld_1 does not exist",
  ]);
});

test("a log that is over is not asked for again", async () => {
  const it = stage([{ status: 204 }]);
  await it.run();
  expect(it.said.at(-1)?.state).toBe("over");
});

test("a reader that asks again gets one at once, then has to wait", async () => {
  const again = { chunks: ["event: error\ndata: {}\n\n"] };
  const it = stage([again, again, again, { status: 204 }], () => "again");
  await it.run();
  expect(it.paths.length).toBe(4);
  expect(it.waits).toEqual([2000, 4000]);
});

test("waits double up to a bound and are never in step", () => {
  expect([1, 2, 3, 9, 99].map((tries) => backoff(tries, 1))).toEqual([1000, 2000, 4000, 15000, 15000]);
  expect(backoff(3, 0)).toBe(3000);
});

const ended = JSON.stringify({ error: { code: "unauthorized", message: "the session is over", details: [] } });

test("a session that ended is waited for, and reading goes on from where it stood", async () => {
  const it = stage([{ chunks: ["data: a\n\n"] }, { status: 401, body: ended }, { chunks: ["data: b\n\n"] }], overAt("b"));
  const done = it.run();
  await expect.poll(() => it.said.at(-1)?.state).toBe("signed-out");
  expect(it.paths.length).toBe(2);
  it.signIns.note();
  await done;
  expect(it.taken).toEqual(["a", "b"]);
  expect(it.paths.at(-1)).toBe("/stream?from_seq=2");
  expect(it.said.at(-1)?.state).toBe("over");
});

test("who signs in while the old session is being refused is not asked to sign in again", async () => {
  const it = stage([{ status: 401, body: ended, meanwhile: "signed in" }, { chunks: ["data: a\n\n"] }], overAt("a"));
  await it.run();
  expect(it.said.map((connection) => connection.state)).not.toContain("signed-out");
  expect(it.said.at(-1)?.state).toBe("over");
});

test("nobody waits any more for a sign-in on a page that was left", async () => {
  const it = stage([{ status: 401, body: ended }]);
  const done = it.run();
  await expect.poll(() => it.said.at(-1)?.state).toBe("signed-out");
  it.ending.abort();
  await done;
  expect(it.paths.length).toBe(1);
});

afterEach(() => void vi.useRealTimers());

test("a connection is not taken for live when the browser has no network any more", async () => {
  const it = stage([{ chunks: ["data: a\n\n"], stays: true }, { chunks: ["data: b\n\n"] }], overAt("b"));
  const done = it.run();
  await expect.poll(() => it.taken).toEqual(["a"]);
  for (const told of [...it.listeners]) told();
  await done;
  expect(it.said.map((connection) => connection.state)).toEqual(["connecting", "live", "waiting", "connecting", "live", "over"]);
  expect([it.taken, it.listeners.size]).toEqual([["a", "b"], 0]);
});

test("a connection on which not even a heartbeat comes is given up", async () => {
  vi.useFakeTimers();
  const it = stage([{ chunks: ["data: a\n\n"], stays: true }, { chunks: ["data: b\n\n"] }], overAt("b"));
  const done = it.run();
  await vi.advanceTimersByTimeAsync(44_000);
  expect(it.said.at(-1)?.state).toBe("live");
  await vi.advanceTimersByTimeAsync(2_000);
  await done;
  expect(it.taken).toEqual(["a", "b"]);
});
