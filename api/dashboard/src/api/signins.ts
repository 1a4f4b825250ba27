// How often somebody has signed in on this page, for whoever must wait for the next time: a session that ended is
// replaced by another one, and what was refused under the old one goes on under the new one.

export class SignIns {
  #count = 0;
  readonly #waiting = new Set<() => void>();

  /** So many times so far. */
  get count(): number {
    return this.#count;
  }

  /** Somebody has just signed in. */
  note(): void {
    this.#count += 1;
    for (const wake of [...this.#waiting]) wake();
  }

  /** Resolves once `count` is above `before`, or when `signal` is aborted. */
  after(before: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      if (signal.aborted || this.#count > before) return resolve();
      this.#waiting.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}

export const signIns = new SignIns();
