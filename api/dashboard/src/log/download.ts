// A whole log, or one step's, as a text file: read page by page from the api, so that what the viewer gave up is in
// it, too. Escape sequences stay: the file is what the commands wrote.

import { api, body } from "../api/client";
import type { LogRecord } from "../api/types";

const PAGE_RECORDS = 10_000;

/** The text of records: parts of one line are joined again. */
export function text(records: readonly LogRecord[]): string {
  let written = "";
  for (const record of records) {
    if (record.end !== undefined) continue;
    written += record.text ?? "";
    if (record.cont !== true) written += "\n";
  }
  return written;
}

/** Reads everything; `progress` is told the lines so far. */
export async function collect(
  build: string,
  step: number | undefined,
  signal: AbortSignal,
  progress: (lines: number) => void,
): Promise<Blob> {
  const parts: string[] = [];
  let from = 1;
  let lines = 0;
  for (;;) {
    const page = await body(
      api.GET("/v1/admin/builds/{id}/logs", {
        params: { path: { id: build }, query: { from_seq: from, limit: PAGE_RECORDS, step } },
        signal,
      }),
    );
    parts.push(text(page.records));
    lines += page.records.length;
    progress(lines);
    // A filter may leave a page empty; only a place that does not move is the end.
    if (page.next_seq <= from || page.records.at(-1)?.end !== undefined) break;
    from = page.next_seq;
  }
  return new Blob(parts, { type: "text/plain;charset=utf-8" });
}

export function save(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
