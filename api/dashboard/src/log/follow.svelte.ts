// One build's log, followed live: the model, its connection, and a counter that moves some times a second at most,
// however fast the lines come: nobody reads faster, and drawing must not hold up reading.

import { notice } from "../api/client";
import { type Connection, follow } from "../api/events";
import { LogModel } from "./model";
import { logReader } from "./reader";

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
    const said = (connection: Connection) => {
      if (connection.state === "signed-out") notice(connection.failure);
      this.connection = connection;
    };
    void follow(logReader(build, this.model, () => this.#schedule(), said), this.#ending.signal);
  }

  stop(): void {
    this.#ending.abort();
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
