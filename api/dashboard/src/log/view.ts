// The lines of a log that one viewer shows, as rows: all of them or one step's, each as high as it must be, and
// which of them a search finds. It follows its model in small bites, so that a log of 200,000 lines costs each
// new line only what that line costs. Pure.

import { plain } from "./ansi";
import { type Line, type LogModel, holds, isError } from "./model";

/** Characters of a row that are shown without wrapping; a longer line says how much more there is. */
export const SHOWN_CHARACTERS = 2_000;
/** Columns between tab stops. */
export const TAB = 8;

// Characters that a terminal draws twice as wide.
const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\ud83c-\ud83e][\udc00-\udfff]/g;

// One column a character: nearly every line, and all of them are measured when wrapping begins.
const SIMPLE = /^[ -~]*$/;

/** The columns that a text takes. */
export function columns(text: string): number {
  let taken = text.length;
  if (text.includes("\t")) {
    taken = 0;
    for (const part of text.split("\t")) taken = (Math.floor((taken + part.length) / TAB) + 1) * TAB;
  }
  // eslint-disable-next-line no-control-regex
  if (/[^\u0000-\u0fff]/.test(text)) taken += text.match(WIDE)?.length ?? 0;
  return taken;
}

export class LogView {
  /** Ordinals of the shown lines; undefined where all are shown. */
  readonly #shown: number[] | undefined;
  /** Places in `#shown` before this one were given up with their lines. */
  #start = 0;
  /** Where each row ends, in units of one text row, from `#start` on; only while lines are wrapped. */
  #ends: number[] = [];
  /** Where the first held row begins while lines are wrapped: rows before it were given up. */
  #offset = 0;
  #wrap = 0;
  /** The model's first and last ordinal at the last update. */
  #base: number;
  #seen: number;

  #needle = "";
  /** Rows found, by ordinal; in order. */
  #found: number[] = [];
  #searched: number;

  constructor(
    readonly model: LogModel,
    readonly step?: number,
  ) {
    this.#shown = step === undefined ? undefined : [];
    this.#base = model.first;
    this.#seen = model.first;
    this.#searched = model.first;
    this.update();
  }

  /** Shown lines. */
  get length(): number {
    return this.#shown === undefined ? this.model.last - this.model.first : this.#shown.length - this.#start;
  }

  /** The ordinal of a shown line, by its index from 0. */
  ordinal(index: number): number {
    return this.#shown === undefined ? this.model.first + index : (this.#shown[this.#start + index] ?? -1);
  }

  /** A shown line, by its index from 0. */
  at(index: number): Line | undefined {
    return this.model.at(this.ordinal(index));
  }

  /** The index of the line with this ordinal, or of the next one that is shown. */
  index(ordinal: number): number {
    if (this.#shown === undefined) return Math.min(Math.max(0, ordinal - this.model.first), this.length);
    return lowerBound(this.#shown, ordinal, this.#start) - this.#start;
  }

  /** Takes in what the model has got, and gives up what it gave up. Returns how many shown lines went. */
  update(): number {
    const { first, last } = this.model;
    let gone = 0;
    if (this.#shown === undefined) {
      gone = Math.max(0, Math.min(first, this.#seen) - this.#base);
    } else {
      const before = this.#start;
      while ((this.#shown[this.#start] ?? first) < first) this.#start += 1;
      gone = this.#start - before;
    }
    if (gone > 0 && this.#wrap > 0) this.#forget(gone);
    for (let ordinal = Math.max(this.#seen, first); ordinal < last; ordinal += 1) {
      const line = this.model.at(ordinal);
      if (line === undefined || (this.step !== undefined && line.step !== this.step)) continue;
      this.#shown?.push(ordinal);
      if (this.#wrap > 0) this.#ends.push((this.#ends.at(-1) ?? this.#offset) + this.#rows(line));
    }
    this.#base = first;
    this.#seen = last;
    if (this.#shown !== undefined && this.#start > 65_536) {
      this.#shown.splice(0, this.#start);
      this.#start = 0;
    }
    return gone;
  }

  /** Wraps lines at so many columns; 0 shows each line in one row. */
  wrap(at: number): void {
    if (at === this.#wrap) return;
    this.#wrap = at;
    this.#ends = [];
    this.#offset = 0;
    if (at === 0) return;
    let end = 0;
    for (let index = 0; index < this.length; index += 1) {
      end += this.#rows(this.at(index));
      this.#ends.push(end);
    }
  }

  /** Text rows of all lines together. */
  get rows(): number {
    return this.#wrap === 0 ? this.length : (this.#ends.at(-1) ?? this.#offset) - this.#offset;
  }

  /** The first text row of a line. */
  top(index: number): number {
    if (this.#wrap === 0) return index;
    return index <= 0 ? 0 : (this.#ends[Math.min(index, this.#ends.length) - 1] ?? this.#offset) - this.#offset;
  }

  /** How many text rows a line takes. */
  height(index: number): number {
    return this.#wrap === 0 ? 1 : this.top(index + 1) - this.top(index);
  }

  /** The line that a text row belongs to. */
  lineAt(row: number): number {
    if (this.#wrap === 0) return Math.min(Math.max(0, Math.floor(row)), Math.max(0, this.length - 1));
    const index = lowerBound(this.#ends, Math.floor(row) + this.#offset + 1, 0);
    return Math.min(index, Math.max(0, this.length - 1));
  }

  /** Looks for a text, in any case. The lines are searched by `searchOn`. */
  search(needle: string): void {
    const lower = needle.toLowerCase();
    if (lower === this.#needle) return;
    this.#needle = lower;
    this.#found = [];
    this.#searched = this.model.first;
  }

  get needle(): string {
    return this.#needle;
  }

  /** Ordinals of the lines found so far. */
  get found(): readonly number[] {
    return this.#found;
  }

  /** The place of a line among those found, from 1; 0 for one that was not found. */
  foundPlace(ordinal: number): number {
    const place = lowerBound(this.#found, ordinal, 0);
    return this.#found[place] === ordinal ? place + 1 : 0;
  }

  /** Searches on until `until` says that it is enough; true once all lines are searched. */
  searchOn(until: () => boolean): boolean {
    const { first, last } = this.model;
    if ((this.#found[0] ?? first) < first) {
      this.#found = this.#found.slice(lowerBound(this.#found, first, 0));
    }
    if (this.#needle === "") {
      this.#searched = last;
      return true;
    }
    let ordinal = Math.max(this.#searched, first);
    for (; ordinal < last; ordinal += 1) {
      if (ordinal % 512 === 0 && until()) break;
      const line = this.model.at(ordinal);
      if (line === undefined || (this.step !== undefined && line.step !== this.step)) continue;
      if (holds(line, this.#needle)) this.#found.push(ordinal);
    }
    this.#searched = ordinal;
    return ordinal >= last;
  }

  /** The index of the found line after (or before) the line with index `from`; around the end if need be. */
  foundFrom(from: number, step: 1 | -1): number | undefined {
    const { length } = this.#found;
    if (length === 0) return undefined;
    const ordinal = from < 0 ? this.model.first - 1 : from < this.length ? this.ordinal(from) : this.model.last;
    const place = step === 1 ? lowerBound(this.#found, ordinal + 1, 0) : lowerBound(this.#found, ordinal, 0) - 1;
    const found = this.#found[(place + length) % length];
    return found === undefined ? undefined : this.index(found);
  }

  /** The index of the next line that tells of an error, after the line with index `from`; around the end. */
  errorFrom(from: number): number | undefined {
    const { length } = this;
    for (let away = 1; away <= length; away += 1) {
      const index = (from + away + length) % length;
      const line = this.at(index);
      if (line !== undefined && isError(line)) return index;
    }
    return undefined;
  }

  #rows(line: Line | undefined): number {
    if (line === undefined) return 1;
    const { text } = line;
    const taken = SIMPLE.test(text) ? text.length : columns(plain(text));
    return Math.max(1, Math.ceil(taken / this.#wrap));
  }

  #forget(gone: number): void {
    this.#offset = this.#ends[gone - 1] ?? this.#offset;
    this.#ends.splice(0, gone);
  }
}

/** The first place from `from` on whose value is not below `value`, in a sorted list. */
function lowerBound(list: readonly number[], value: number, from: number): number {
  let low = from;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((list[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
