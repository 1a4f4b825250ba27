// What the events of a build's log mean to its model: where to read on, what to take, and when to come back. Pure.

import type { Connection, Event, Reader, Verdict } from "../api/events";
import type { LogRecord } from "../api/types";
import type { LogModel } from "./model";

/** Reads `build`'s log into `model`; `moved` is told when it has got something. */
export function logReader(
  build: string,
  model: LogModel,
  moved: () => void,
  said: (connection: Connection) => void,
): Reader {
  return {
    path: () => `/v1/admin/builds/${build}/logs/stream?from_seq=${model.next}`,
    take(events: readonly Event[]): Verdict {
      const records: LogRecord[] = [];
      let verdict: Verdict = "more";
      for (const event of events) {
        // The server stops, or this page read too slowly: both say to come back.
        if (event.type === "error") verdict = "again";
        else if (event.type === "message") records.push(JSON.parse(event.data) as LogRecord);
      }
      if (model.append(records).gap) verdict = "again";
      moved();
      return model.end === undefined ? verdict : "over";
    },
    said(connection) {
      if (connection.state === "live") model.join();
      said(connection);
    },
  };
}
