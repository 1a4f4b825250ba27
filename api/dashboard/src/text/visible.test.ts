import { expect, test } from "vitest";
import { visible } from "./visible";

test("control characters become their pictures, and a tab stays", () => {
  expect(visible("a\u0000b\u001b[31mc\td\u007f")).toBe("a\u2400b\u241b[31mc\td\u2421");
});

test("what reorders or hides text is spelled out", () => {
  expect(visible("user\u202egpj.exe")).toBe("user[U+202E]gpj.exe");
  expect(visible("a\u200bb\ufeff\u2066")).toBe("a[U+200B]b[U+FEFF][U+2066]");
});

test("ordinary text of any script is left alone", () => {
  const text = "größer · 日本語 · שלום · <script>alert(1)</script> 🧱";
  expect(visible(text)).toBe(text);
});
