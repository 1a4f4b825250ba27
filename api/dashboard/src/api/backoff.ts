// How long to wait before a broken connection is tried again: twice as long each time, up to a bound, and never
// exactly, so that many pages do not come back to a restarted api in one moment.

export const FIRST_WAIT_MS = 1_000;
export const LONGEST_WAIT_MS = 15_000;

/** The wait before try number `tries` (from 1); `random` is from 0 to 1. */
export function backoff(tries: number, random: number): number {
  const full = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(10, Math.max(0, tries - 1)));
  return Math.round(full * (0.75 + random * 0.25));
}
