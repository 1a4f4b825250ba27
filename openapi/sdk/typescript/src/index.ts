/**
 * Client of Ovenbird: submit builds, follow their logs, use sandboxes.
 *
 * What is re-exported from `rest` is generated from the API's OpenAPI document and has every operation. What a generator
 * cannot make stands beside it: `follow` follows a build's log through broken connections, `@ovenbird/sdk/live` does so
 * over NATS, and `buildEnd` waits for a build.
 */

export { buildEnd } from "./build.js";
export { connect } from "./connect.js";
export { Late, OvenbirdError, Refused, Unreachable } from "./errors.js";
export { follow } from "./log.js";
export * from "./rest/index.js";
export type { Client } from "./rest/client/index.js";
