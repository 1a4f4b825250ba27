// Text from elsewhere (names, output, reasons) as text that cannot deceive. Control characters become their
// pictures, and what reorders or hides text (right-to-left overrides, zero-width characters) becomes its code
// point in brackets. It never makes HTML: everything is put on the page as text.

const C0_PICTURES = 0x2400;
const DELETE_PICTURE = "\u2421";

// C0 without tab, DEL, C1; soft hyphen, Arabic letter mark, zero-width and directional marks, line and paragraph
// separators, embeddings and overrides, word joiner and isolates, byte order mark, interlinear annotations.
// eslint-disable-next-line no-control-regex
const DECEPTIVE = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** `text` with everything visible that is in it. */
export function visible(text: string): string {
  return text.replace(DECEPTIVE, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(C0_PICTURES + code);
    if (code === 0x7f) return DELETE_PICTURE;
    return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}
