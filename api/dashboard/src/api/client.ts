// The one way to call the api. Every call either returns the answer's body or throws a `Failure`; changes carry the
// session's CSRF token, which only this page can know.

import createClient, { type Middleware } from "openapi-fetch";
import { Failure, failureFrom, offline } from "./failure";
import type { paths } from "./schema";
import { signIns } from "./signins";

const CSRF_HEADER = "x-csrf-token";
const SAFE_METHODS = new Set(["GET", "HEAD"]);
/** A call that takes longer is broken off; commands in sandboxes may take 100 s. */
const PATIENCE_MS = 120_000;

let csrfToken: string | undefined;
let signedOut: (failure: Failure) => void = () => undefined;

/** From now on changes carry this token: that of who has just signed in, or of nobody. */
export function useToken(token: string | undefined): void {
  csrfToken = token;
  if (token !== undefined) signIns.note();
}

/** Tells who wants to know that the session is over. */
export function onSignedOut(told: (failure: Failure) => void): void {
  signedOut = told;
}

/** Notes a failure that says that the session is over. */
export function notice(failure: Failure): void {
  if (failure.isSignedOut) signedOut(failure);
}

const withToken: Middleware = {
  onRequest({ request }) {
    if (csrfToken !== undefined && !SAFE_METHODS.has(request.method)) {
      request.headers.set(CSRF_HEADER, csrfToken);
    }
    return request;
  },
};

const client = createClient<paths>({
  credentials: "same-origin",
  fetch: (request: Request) => {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    return fetch(request, { signal: AbortSignal.any([request.signal, patience]) });
  },
});
client.use(withToken);

export const api = client;

/** The body of an answer, or the failure that it is. */
export async function body<Data>(
  call: Promise<{ data?: Data; error?: unknown; response: Response }>,
): Promise<Data> {
  let answer: { data?: Data; error?: unknown; response: Response };
  try {
    answer = await call;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw offline();
  }
  if (answer.response.ok) return answer.data as Data;
  const failure = failureFrom(answer.response, answer.error);
  notice(failure);
  throw failure;
}

/** What was thrown by a call, as a failure; anything else is a mistake of this page and is thrown on. */
export function caught(error: unknown): Failure {
  if (error instanceof Failure) return error;
  throw error;
}
