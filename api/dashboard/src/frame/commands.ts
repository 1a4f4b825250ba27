// Keys without a modifier, outside of fields: single ones and `g e`. Which command a key means is decided here, what
// the command does by whoever listens last, as the thing nearest to the reader's eyes.

export type Command = "search" | "new" | "next" | "previous" | "follow" | "next-error" | "help";

const SINGLE: Record<string, Command> = {
  "/": "search",
  n: "new",
  j: "next",
  k: "previous",
  f: "follow",
  "?": "help",
};
const AFTER_G: Record<string, Command> = { e: "next-error" };
/** The second key of a pair must follow within this time. */
const PAIR_MS = 1_000;

/** Reads keys one by one. */
export class Keys {
  #pairUntil = 0;

  press(key: string, now: number): Command | undefined {
    const isPaired = now < this.#pairUntil;
    this.#pairUntil = 0;
    if (isPaired && AFTER_G[key] !== undefined) return AFTER_G[key];
    if (key === "g") {
      this.#pairUntil = now + PAIR_MS;
      return undefined;
    }
    return SINGLE[key];
  }
}

type Listener = () => void;
const listeners = new Map<Command, Listener[]>();

/** Listens to a command until the returned function is called. */
export function listen(command: Command, listener: Listener): () => void {
  listeners.set(command, [...(listeners.get(command) ?? []), listener]);
  return () => {
    listeners.set(command, (listeners.get(command) ?? []).filter((other) => other !== listener));
  };
}

/** Runs a command; false when nobody listens. */
export function run(command: Command): boolean {
  const listener = listeners.get(command)?.at(-1);
  listener?.();
  return listener !== undefined;
}
