// One build's log, followed live: the model, its connection, and a counter that moves some times a second at most,
// however fast the lines come: nobody reads faster, and drawing must not hold up reading.

import { type Connection, type Event, type Verdict, follow } from "../api/events";
import { notice } from "../api/client";
import type { LogRecord } from "../api/types";
import { LogModel } from "./model";

/** The time between two drawings of new lines. */
const DRAW_MS = 100;

export class LogFollow {
  readonly model: LogModel;
  connection = $state.raw<Connection>({ state: "connecting" });
  /** Moves when the model did. */
  version = $state(0);

  readonly #ending = new AbortController();
  #isScheduled = false;

  constructor(
    readonly build: string,
    from = 1,
  ) {
    this.model = new LogModel(from);
    void follow(
      {
        path: () => `/v1/admin/builds/${build}/logs/stream?from_seq=${this.model.next}`,
        take: (events) => this.#take(events),
        said: (connection) => {
          if (connection.state === "refused") notice(connection.failure);
          this.connection = connection;
        },
      },
      this.#ending.signal,
    );
  }

  stop(): void {
    this.#ending.abort();
  }

  #take(events: readonly Event[]): Verdict {
    const records: LogRecord[] = [];
    let verdict: Verdict = "more";
    for (const event of events) {
      // The server stops, or this page read too slowly: both say to come back.
      if (event.type === "error") verdict = "again";
      else if (event.type === "message") records.push(JSON.parse(event.data) as LogRecord);
    }
    if (this.model.append(records).gap) verdict = "again";
    this.#schedule();
    return this.model.end === undefined ? verdict : "over";
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const move = () => {
      this.#isScheduled = false;
      this.version += 1;
    };
    setTimeout(move, DRAW_MS);
  }
}
