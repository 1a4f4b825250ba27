// The log of one build as the page holds it: records joined by `seq`, without duplicate, in bounded memory, and
// without gap but where the api itself has one, which is then told in a line of its own.
// Pure: it knows neither the network nor the page. The connection asks it where to go on, the viewer asks it for
// lines by their ordinal (0 for the first line it ever got), which stays the same when older lines are given up.

import type { LogRecord } from "../api/types";
import { PLAIN, type Style, plain, styleAfter } from "./ansi";

export interface Line {
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly step: number;
  readonly attempt: number;
  readonly stream: "stdout" | "stderr" | "system";
  readonly text: string;
  /** It goes on in the next line of its step and stream. */
  readonly goesOn: boolean;
  /** It goes on from the line before it of its step and stream. */
  readonly goneOn: boolean;
  /** With what style its text begins. */
  readonly style: Style;
}

export interface Bounds {
  readonly lines: number;
  /** Characters of text. */
  readonly characters: number;
}

export const BOUNDS: Bounds = { lines: 250_000, characters: 64 * 1024 * 1024 };

export interface Appended {
  /** Lines that were added. */
  readonly added: number;
  /** A record came too early: go on from `model.next` again. */
  readonly gap: boolean;
}

export interface End {
  readonly status: "succeeded" | "failed" | "cancelled";
  readonly lastSeq: number;
}

/** Ordinals that are given up before the array of lines is cut. */
const SLACK = 16_384;

export class LogModel {
  /** The `seq` that must come next. */
  next: number;
  /** How the build ended, once the log says so. */
  end: End | undefined;
  /** Ordinal of the first line that is still held. */
  first = 0;
  /** Where the log begins here: lines before this `seq` were never asked for. */
  readonly from: number;
  /** Records that the api does not have any more. */
  lost = 0;

  #lines: Line[] = [];
  /** Index in `#lines` of the line with ordinal `first`. */
  #head = 0;
  #characters = 0;
  /** The `next` before which a connection had a gap. */
  #gapAt: number | undefined;
  /** No record came yet on this connection, which began at `next`. */
  #isJoined = false;
  readonly #open = new Map<string, { style: Style; goesOn: boolean }>();

  constructor(
    from = 1,
    private readonly bounds: Bounds = BOUNDS,
  ) {
    this.from = from;
    this.next = from;
  }

  /** One past the ordinal of the last line. */
  get last(): number {
    return this.first + this.#lines.length - this.#head;
  }

  /** Lines that were given up to stay within the bounds. */
  get givenUp(): number {
    return this.first;
  }

  /** The line with this ordinal, if it is held. */
  at(ordinal: number): Line | undefined {
    return ordinal < this.first ? undefined : this.#lines[this.#head + ordinal - this.first];
  }

  /** A new connection begins, which was asked for `next`. */
  join(): void {
    this.#isJoined = true;
  }

  /** Adds records in the order of their `seq`. Those that are here already are left out. */
  append(records: readonly LogRecord[]): Appended {
    let added = 0;
    for (const record of records) {
      if (record.seq < this.next) continue;
      if (record.seq > this.next) {
        // A gap that is there again when exactly its first record was asked for is the log's own.
        if (!this.#isJoined || this.#gapAt !== this.next) {
          this.#gapAt = this.next;
          this.#isJoined = false;
          this.#trim();
          return { added, gap: true };
        }
        this.#lose(record);
        added += 1;
      }
      this.#isJoined = false;
      this.next = record.seq + 1;
      if (record.end) {
        this.end = { status: record.end.status as End["status"], lastSeq: record.end.last_seq };
      } else {
        this.#push(record);
        added += 1;
      }
    }
    this.#trim();
    return { added, gap: false };
  }

  /** The ordinal of the line with this `seq`, or of the first one after it. */
  find(seq: number): number {
    let low = this.first;
    let high = this.last;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.at(middle)?.seq ?? 0) < seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Tells in a line that everything between `next` and `record` is lost. */
  #lose(record: LogRecord): void {
    const [from, to] = [this.next, record.seq - 1];
    this.lost += to - from + 1;
    this.#open.clear();
    const text = from === to ? `record ${from} is lost` : `records ${from}–${to} are lost`;
    const { step, attempt } = { ...this.at(this.last - 1), ...record };
    this.#push({ seq: to, step, attempt, stream: "system", text });
  }

  #push(record: LogRecord): void {
    const text = record.text ?? "";
    const step = record.step ?? 0;
    const stream = record.stream ?? "system";
    const attempt = record.attempt ?? 0;
    const key = `${attempt}/${step}/${stream}`;
    const open = this.#open.get(key);
    const style = open?.style ?? PLAIN;
    const goesOn = record.cont === true;
    this.#lines.push({
      seq: record.seq,
      at: record.ts === undefined ? Number.NaN : Date.parse(record.ts),
      step,
      attempt,
      stream,
      text,
      goesOn,
      goneOn: open?.goesOn ?? false,
      style,
    });
    this.#characters += text.length;
    const after = styleAfter(text, style);
    if (after === PLAIN && !goesOn) this.#open.delete(key);
    else this.#open.set(key, { style: after, goesOn });
  }

  /** Gives up the oldest lines beyond the bounds; the newest one always stays. */
  #trim(): void {
    const over = () => this.last - this.first > this.bounds.lines || this.#characters > this.bounds.characters;
    while (over() && this.last - this.first > 1) {
      this.#characters -= this.#lines[this.#head]?.text.length ?? 0;
      this.#head += 1;
      this.first += 1;
    }
    if (this.#head > SLACK) {
      this.#lines = this.#lines.slice(this.#head);
      this.#head = 0;
    }
  }
}

const ERROR = /\b(?:error|errors|failed|failure|fatal|panic|panicked|exception|traceback|cannot|denied)\b|\bE:/i;
/** What is looked at of a line: errors announce themselves early, and a line of 16 KiB is data. */
const LOOKED_AT = 400;

/** Whether a line tells of an error, as far as words can say it. */
export function isError(line: Line): boolean {
  return ERROR.test(line.text.length > LOOKED_AT ? line.text.slice(0, LOOKED_AT) : line.text);
}

/** Whether a line holds `needle`, which is in lower case already. */
export function holds(line: Line, needle: string): boolean {
  const text = line.text;
  if (text.includes("\u001b") || text.includes("\r")) return plain(text).toLowerCase().includes(needle);
  return text.toLowerCase().includes(needle);
}
