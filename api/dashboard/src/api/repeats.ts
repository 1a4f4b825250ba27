// Under which `Idempotency-Key` a change is asked for: the same ask has the same key until it succeeded, whatever
// happened in between, so that asking again after a broken answer, or after signing in again, makes nothing twice.
// A refusal needs no new key: the api keeps none.

/** Asks that were not answered yet are kept up to this many, the latest ones. */
export const KEPT_MAX = 50;

export class Repeats {
  readonly #keys = new Map<string, string>();

  /** The key for what `ask` says, in any words that are the same for the same. */
  key(ask: string): string {
    const key = this.#keys.get(ask) ?? fresh();
    this.#keys.delete(ask);
    this.#keys.set(ask, key);
    for (const [oldest] of this.#keys) {
      if (this.#keys.size <= KEPT_MAX) break;
      this.#keys.delete(oldest);
    }
    return key;
  }

  /** It succeeded: the same words are another ask from now on. */
  done(ask: string): void {
    this.#keys.delete(ask);
  }
}

/** A key that nobody else has. `crypto.randomUUID` would need a page that came over TLS. */
export function fresh(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
