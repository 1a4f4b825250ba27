// Colours of a terminal in a line of output: SGR sequences become spans with a style, every other escape
// sequence (cursor movement, titles, hyperlinks) is left out. A line is shown as a terminal would leave it, so
// what a carriage return overwrote is gone. It makes spans of text, never HTML.

import { withoutEnding } from "../text/end";
import { visible } from "../text/visible";

/** A colour: one of the 16 of the theme, or red, green and blue. */
export type Colour = number | readonly [number, number, number];

export interface Style {
  readonly foreground?: Colour;
  readonly background?: Colour;
  readonly bold?: boolean;
  readonly dim?: boolean;
  readonly italic?: boolean;
  readonly underline?: boolean;
  readonly inverse?: boolean;
  readonly strike?: boolean;
}

export interface Span {
  readonly text: string;
  readonly style: Style;
}

export const PLAIN: Style = Object.freeze({});

const ESCAPE = "\u001b";
// CSI; OSC, DCS, SOS, PM, APC up to their end; charset selections; two-byte sequences; a lone ESC at the end.
// eslint-disable-next-line no-control-regex
const SEQUENCE = /\u001b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|\[[0-?]*[ -/]*$|[ -/]+[0-~]|[0-~]|$)/g;

/** The style after `text`. */
export function styleAfter(text: string, start: Style): Style {
  if (!text.includes(ESCAPE)) return start;
  let style = start;
  for (const match of text.matchAll(SEQUENCE)) {
    if (match[2] === "m") style = apply(style, match[1] ?? "");
  }
  return style;
}

/** The spans of a line whose first character has the style `start`. */
export function spans(text: string, start: Style): Span[] {
  let style = start;
  let from = 0;
  let found: Span[] = [];
  const push = (part: string) => {
    const returned = part.lastIndexOf("\r");
    if (returned >= 0) found = [];
    const kept = part.slice(returned + 1);
    if (kept !== "") found.push({ text: visible(kept), style });
  };
  // Line ends of Windows are no overwriting, nor are progress bars that end in a return.
  const line = withoutEnding(text, "\r");
  if (!line.includes(ESCAPE)) {
    push(line);
    return found;
  }
  for (const match of line.matchAll(SEQUENCE)) {
    push(line.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[2] === "m") style = apply(style, match[1] ?? "");
  }
  push(line.slice(from));
  return found;
}

/** The text of a line without its escape sequences, as it is shown, searched and copied. */
export function plain(text: string): string {
  return spans(text, PLAIN)
    .map((span) => span.text)
    .join("");
}

function apply(before: Style, parameters: string): Style {
  const codes = parameters === "" ? [0] : parameters.split(/[;:]/).map((code) => Number(code) || 0);
  let style = before;
  for (let place = 0; place < codes.length; place += 1) {
    const code = codes[place] ?? 0;
    if (code === 38 || code === 48) {
      const [colour, taken] = extended(codes, place + 1);
      place += taken;
      if (colour !== undefined) {
        style = { ...style, [code === 38 ? "foreground" : "background"]: colour };
      }
    } else {
      style = simple(style, code);
    }
  }
  return style;
}

function simple(style: Style, code: number): Style {
  switch (code) {
    case 0: return PLAIN;
    case 1: return { ...style, bold: true };
    case 2: return { ...style, dim: true };
    case 3: return { ...style, italic: true };
    case 4: return { ...style, underline: true };
    case 7: return { ...style, inverse: true };
    case 9: return { ...style, strike: true };
    case 22: return { ...style, bold: false, dim: false };
    case 23: return { ...style, italic: false };
    case 24: return { ...style, underline: false };
    case 27: return { ...style, inverse: false };
    case 29: return { ...style, strike: false };
    case 39: return { ...style, foreground: undefined };
    case 49: return { ...style, background: undefined };
  }
  if (code >= 30 && code <= 37) return { ...style, foreground: code - 30 };
  if (code >= 40 && code <= 47) return { ...style, background: code - 40 };
  if (code >= 90 && code <= 97) return { ...style, foreground: code - 82 };
  if (code >= 100 && code <= 107) return { ...style, background: code - 92 };
  return style;
}

/** The colour of the `5;n` or `2;r;g;b` at `place`, and how many codes that took. */
function extended(codes: readonly number[], place: number): [Colour | undefined, number] {
  const byte = (away: number) => Math.min(255, Math.max(0, codes[place + away] ?? 0));
  if (codes[place] === 5) return [indexed(byte(1)), 2];
  if (codes[place] === 2) return [[byte(1), byte(2), byte(3)], 4];
  return [undefined, 1];
}

function indexed(index: number): Colour {
  if (index < 16) return index;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return [grey, grey, grey];
  }
  const level = (value: number) => (value === 0 ? 0 : 55 + value * 40);
  const cube = index - 16;
  return [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)];
}
