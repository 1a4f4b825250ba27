// Operations that other changes add to openapi.json, in the shape in which openapi-typescript will generate them.
// Once they are in the document this file goes, and `client.ts` takes `paths` alone.

interface Parameters {
  query?: never;
  header?: never;
  path?: never;
  cookie?: never;
}

interface Answer<Content> {
  headers: Record<string, unknown>;
  content: { "application/json": Content };
}

interface Nothing {
  headers: Record<string, unknown>;
  content?: never;
}

interface NoMethods {
  get?: never;
  put?: never;
  post?: never;
  delete?: never;
  options?: never;
  head?: never;
  patch?: never;
  trace?: never;
}

export interface WaitingBuild {
  build_id: string;
  name: string;
  tag: string;
  position: number;
  /** A stable word. */
  reason: string;
  message: string;
  queued_at: string;
  eta?: string;
}

export interface Queue {
  depth: number;
  running: number;
  free_slots?: number;
  slots_wanted: number;
  items: WaitingBuild[];
  next_cursor?: string;
}

export interface Sandbox {
  id: string;
  template_id: string;
  template: string;
  status: string;
  vcpus: number;
  memory_mb: number;
  host_id: string;
  reason?: { code: string; message: string };
  created_at: string;
}

export interface SandboxCreate {
  /** `name`, `name:tag`, or a template's id. */
  template: string;
  /** Idle seconds until it is paused by itself; 0 means never. */
  timeout_sec?: number;
}

export interface Exec {
  /** Text for `/bin/sh -c`. */
  script: string;
  timeout_sec?: number;
}

export interface ExecResult {
  exit_code?: number;
  timed_out: boolean;
  error?: string;
  stdout: string;
  stderr: string;
  truncated?: { stdout_bytes: number; stderr_bytes: number };
  elapsed_ms: number;
}

export interface PendingPaths {
  "/v1/admin/queue": NoParameters &
    Omit<NoMethods, "get"> & {
      get: {
        parameters: Omit<Parameters, "query"> & { query?: { cursor?: string; limit?: number } };
        requestBody?: never;
        responses: { 200: Answer<Queue> };
      };
    };
  "/v1/admin/templates/{name}": NoParameters &
    Omit<NoMethods, "delete"> & {
      delete: {
        parameters: Omit<Parameters, "path"> & { path: { name: string } };
        requestBody?: never;
        responses: { 204: Nothing };
      };
    };
  "/v1/sandboxes": NoParameters &
    Omit<NoMethods, "get" | "post"> & {
      get: {
        parameters: Omit<Parameters, "query"> & {
          query?: { template_id?: string; status?: string; limit?: number };
        };
        requestBody?: never;
        responses: { 200: Answer<{ items: Sandbox[]; next_cursor?: string }> };
      };
      post: {
        parameters: Parameters;
        requestBody: { content: { "application/json": SandboxCreate } };
        responses: { 201: Answer<Sandbox> };
      };
    };
  "/v1/sandboxes/{id}": NoParameters &
    Omit<NoMethods, "delete"> & {
      delete: {
        parameters: Omit<Parameters, "path"> & { path: { id: string } };
        requestBody?: never;
        responses: { 200: Answer<Sandbox> };
      };
    };
  "/v1/sandboxes/{id}/exec": NoParameters &
    Omit<NoMethods, "post"> & {
      post: {
        parameters: Omit<Parameters, "path"> & { path: { id: string } };
        requestBody: { content: { "application/json": Exec } };
        responses: { 200: Answer<ExecResult> };
      };
    };
}

interface NoParameters {
  parameters: Parameters;
}
