import { expect, test } from "vitest";
import { PLAIN, plain, spans, styleAfter } from "./ansi";

const told = (text: string) => spans(text, PLAIN).map((span) => [span.text, span.style]);

test("colours begin and end where they are said to", () => {
  expect(told("a\u001b[31mb\u001b[1;92mc\u001b[0md")).toEqual([
    ["a", {}],
    ["b", { foreground: 1 }],
    ["c", { foreground: 10, bold: true }],
    ["d", {}],
  ]);
});

test("palette and true colours are understood in both notations", () => {
  expect(told("\u001b[38;5;196mx\u001b[48;2;1;2;300my\u001b[38:5:3mz")).toEqual([
    ["x", { foreground: [255, 0, 0] }],
    ["y", { foreground: [255, 0, 0], background: [1, 2, 255] }],
    ["z", { foreground: 3, background: [1, 2, 255] }],
  ]);
});

test("every other escape sequence is left out, also a broken one at the end", () => {
  expect(plain("\u001b[2K\u001b]8;;https://evil.example\u0007link\u001b]8;;\u0007\u001b(B!\u001b[?25l")).toBe("link!");
  expect(plain("tail\u001b[38;5")).toBe("tail");
  expect(plain("tail\u001b")).toBe("tail");
  expect(plain("\u001b]0;title never ends")).toBe("");
});

test("a carriage return overwrites what stood before it, and a line end of Windows does not", () => {
  expect(plain("10 %\r50 %\r100 %")).toBe("100 %");
  expect(plain("10 %\r\u001b[32mdone\u001b[0m")).toBe("done");
  expect(plain("windows\r")).toBe("windows");
});

test("a style goes on in the next line until it is reset", () => {
  const after = styleAfter("\u001b[33mwarning: a", PLAIN);
  expect(after).toEqual({ foreground: 3 });
  expect(spans("b", after)).toEqual([{ text: "b", style: { foreground: 3 } }]);
  expect(styleAfter("b\u001b[m", after)).toEqual({});
  expect(styleAfter("no escape", after)).toBe(after);
});

test("markup and control characters stay text", () => {
  expect(plain("<script>alert(1)</script>\u0007\u202e")).toBe("<script>alert(1)</script>\u2407[U+202E]");
});

test("a line that was made to be slow to read is read at once", () => {
  const many = 100_000;
  const began = process.cpuUsage();
  expect(plain(`${"\r".repeat(many)}x${"\r".repeat(many)}`)).toBe("x");
  expect(styleAfter(`\u001b[${"38;".repeat(many)}1m`, PLAIN)).toEqual({ bold: true });
  expect(styleAfter(`\u001b[${"48;5;7;".repeat(many)}1m`, PLAIN)).toEqual({ background: 7, bold: true });
  expect(plain(`${"\u001b[".repeat(many)}x`)).not.toContain("\u001b");
  expect(plain(`\u001b[${"1".repeat(many)}${" ".repeat(many)}\u0007`)).not.toContain("\u001b");
  expect(plain(`${"\u001b]".repeat(many)}x`)).toBe("");
  expect(process.cpuUsage(began).user / 1000).toBeLessThan(3000);
});
