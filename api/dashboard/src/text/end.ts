// How much of a text's end is made of certain characters, counted from the end. A pattern such as `/x+$/` begins anew
// at every `x` of the text: a line of many thousands of them, which any command can print, would stop the page.

/** How many characters at the end of `text`, or before `end`, are one of `characters`. */
export function ending(text: string, characters: string, end = text.length): number {
  let from = end;
  while (from > 0 && characters.includes(text.charAt(from - 1))) from -= 1;
  return end - from;
}

/** `text` without those at its end that are one of `characters`. */
export function withoutEnding(text: string, characters: string): string {
  return text.slice(0, text.length - ending(text, characters));
}
