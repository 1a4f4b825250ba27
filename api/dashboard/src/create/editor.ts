// The recipe editor: CodeMirror in a shadow tree, where it may set its styles without `unsafe-inline`. Loaded when the
// dialog opens.

import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import {
  EditorView,
  drawSelection,
  highlightActiveLine,
  highlightActiveLineGutter,
  keymap,
  lineNumbers,
  placeholder,
} from "@codemirror/view";
import type { Diagnostic } from "./draft";
import { recipe } from "./language";

const theme = EditorView.theme({
  "&": { height: "100%", fontSize: "13px", color: "var(--ink)", backgroundColor: "var(--surface)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "20px" },
  ".cm-content": { caretColor: "var(--ink)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--raised)", color: "var(--muted)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--raised) 60%, transparent)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--found) !important" },
  ".cm-placeholder": { color: "var(--muted)" },
  // The library's own underline is a data: image.
  ".cm-lintRange-error": {
    backgroundImage: "none",
    textDecoration: "underline wavy var(--failed)",
    textDecorationSkipInk: "none",
  },
  ".cm-lintPoint-error::after": { borderBottomColor: "var(--failed)" },
  ".cm-tooltip": {
    maxWidth: "420px",
    border: "1px solid var(--line)",
    backgroundColor: "var(--surface)",
    color: "var(--ink)",
    fontFamily: "var(--sans)",
  },
});

export interface Editor {
  /** Replaces everything, as when a previous build is taken over. */
  set(text: string): void;
  diagnose(found: readonly Diagnostic[]): void;
  focus(): void;
  destroy(): void;
}

export interface Options {
  readonly text: string;
  readonly label: string;
  readonly changed: (text: string) => void;
  readonly submit: () => void;
}

export function open(host: HTMLElement, options: Options): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.replaceChildren();
  const view = new EditorView({
    root,
    parent: root as unknown as HTMLElement,
    state: EditorState.create({
      doc: options.text,
      extensions: [
        lineNumbers(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        highlightActiveLineGutter(),
        EditorView.lineWrapping,
        placeholder("RUN apt-get install -y nginx"),
        recipe,
        theme,
        EditorView.contentAttributes.of({ "aria-label": options.label, spellcheck: "false" }),
        keymap.of([
          { key: "Mod-Enter", run: () => (options.submit(), true) },
          ...defaultKeymap,
          ...historyKeymap,
          ...lintKeymap,
        ]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) options.changed(update.state.doc.toString());
        }),
      ],
    }),
  });
  return {
    set(text) {
      if (view.state.doc.toString() === text) return;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
    },
    diagnose(found) {
      const { length } = view.state.doc;
      const list = found.map((one) => ({
        from: Math.min(one.from, length),
        to: Math.min(one.to, length),
        message: one.message,
        severity: "error" as const,
      }));
      view.dispatch(setDiagnostics(view.state, list));
    },
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}
