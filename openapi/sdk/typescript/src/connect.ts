/** The client of the REST API with an API key. */

import { type Client, createClient } from "./rest/client/index.js";

/** A client of the API at `url` with an API key; pass it to an operation as `client`. */
export function connect(url: string, key: string): Client {
  // Operations name both ways of sending a key; one is enough.
  const auth = ({ scheme }: { scheme?: string }) => (scheme === "bearer" ? key : undefined);
  return createClient({ baseUrl: url.replace(/\/+$/, ""), auth });
}
