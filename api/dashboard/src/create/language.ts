// The recipe language for the editor: keywords, flags, variables, strings and comments, line by line. Whether a recipe
// is right is for the api to say; this only colours it.

import { HighlightStyle, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { tags } from "@lezer/highlight";

const KEYWORDS = new Set(["RUN", "START", "ENV", "WORKDIR", "USER", "COPY"]);

interface State {
  /** The step that the line belongs to; empty at the beginning of a step. */
  step: string;
  /** Flags may come still. */
  hasFlags: boolean;
  /** The line before ended in a backslash. */
  goesOn: boolean;
}

const parser = StreamLanguage.define<State>({
  name: "recipe",
  startState: () => ({ step: "", hasFlags: false, goesOn: false }),
  copyState: (state) => ({ ...state }),
  languageData: { commentTokens: { line: "#" } },
  token(stream, state) {
    if (stream.sol()) {
      if (stream.match(/^\s*#.*/)) return "comment";
      if (!state.goesOn) state.step = "";
      state.goesOn = false;
    }
    if (stream.eatSpace()) return null;
    if (state.step === "") {
      state.hasFlags = true;
      state.step = "?";
      const word = stream.match(/^\S+/) as RegExpMatchArray | null;
      if (word === null || !KEYWORDS.has(word[0])) return "invalid";
      state.step = word[0];
      return "keyword";
    }
    if (state.hasFlags && stream.match(/^--[a-z]+(?==|\s|$)/)) return "attributeName";
    if (state.hasFlags && stream.match(/^=\S+/)) return "attributeValue";
    state.hasFlags = false;
    if (stream.match(/^\\\s*$/)) {
      state.goesOn = true;
      return "escape";
    }
    if (stream.match(/^\$(\$|\{[A-Za-z_]\w*\}|[A-Za-z_]\w*)/)) return "variableName";
    if (stream.match(/^"(?:[^"\\]|\\.)*"?/) || stream.match(/^'[^']*'?/)) return "string";
    if (state.step === "ENV" && stream.match(/^[A-Za-z_]\w*(?==)/)) return "propertyName";
    if (stream.match(/^(&&|\|\||[|;&<>])/)) return "operator";
    if (!stream.match(/^[^\s"'$\\|;&<>]+/)) stream.next();
    return null;
  },
  blankLine(state) {
    state.step = "";
    state.goesOn = false;
  },
});

const colours = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--accent-text)", fontWeight: "700" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  { tag: tags.attributeName, color: "var(--running)" },
  { tag: tags.attributeValue, color: "var(--running)" },
  { tag: tags.variableName, color: "var(--ansi-5)" },
  { tag: tags.propertyName, color: "var(--ansi-6)" },
  { tag: tags.string, color: "var(--succeeded)" },
  { tag: tags.escape, color: "var(--cancelled)" },
  { tag: tags.invalid, color: "var(--failed)" },
]);

export const recipe = [parser, syntaxHighlighting(colours)];
