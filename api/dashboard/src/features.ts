// What the api that this page was built for can do: read from its openapi.json when the page is built, so that no
// button leads nowhere.

declare const __API_PATHS__: readonly string[];

const has = (path: string) => __API_PATHS__.includes(path);

export const features = {
  queue: has("/v1/admin/queue"),
  templateDelete: has("/v1/admin/templates/{name}"),
  sandboxes: has("/v1/sandboxes") && has("/v1/sandboxes/{id}/exec"),
  events: has("/v1/admin/events/stream"),
} as const;
