// What the api (or the network before it) answers instead of what was asked for. The code is stable; the message is
// for people.

import type { Problem } from "./types";

export class Failure extends Error {
  constructor(
    /** The api's word, or `offline` when there was no answer. */
    readonly code: string,
    message: string,
    readonly status: number,
    readonly details: readonly Problem[] = [],
    readonly requestId?: string,
  ) {
    super(message);
  }

  /** Whether the same may succeed later. */
  get mayPass(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** Nobody is signed in, or no longer. */
  get isSignedOut(): boolean {
    return this.status === 401;
  }
}

export function offline(): Failure {
  return new Failure("offline", "The api does not answer. Is it running, and is the network up?", 0);
}

/** The failure that an answer tells. */
export async function failureOf(response: Response): Promise<Failure> {
  const text = await response.text().catch(() => "");
  return failureFrom(response, text);
}

export function failureFrom(response: Response, body: unknown): Failure {
  const requestId = response.headers.get("x-request-id") ?? undefined;
  const error = errorIn(body);
  if (error === undefined) {
    // Not the api's own shape: a proxy before it.
    const message = `The server answered ${response.status} ${response.statusText}`.trim();
    return new Failure("unknown", message, response.status, [], requestId);
  }
  return new Failure(error.code, error.message, response.status, error.details ?? [], requestId);
}

function errorIn(body: unknown): { code: string; message: string; details?: Problem[] } | undefined {
  try {
    const value = typeof body === "string" ? (JSON.parse(body) as unknown) : body;
    const error = (value as { error?: { code?: unknown; message?: unknown } } | null)?.error;
    if (typeof error?.code !== "string" || typeof error.message !== "string") return undefined;
    return error as { code: string; message: string };
  } catch {
    return undefined;
  }
}
