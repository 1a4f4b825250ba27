// Templates as the table shows them: filtered by words, sorted by a column. Pure.

import type { Template } from "../api/types";

export const COLUMNS = ["name", "type", "size", "vcpus", "memory", "age"] as const;
export type Column = (typeof COLUMNS)[number];

export interface Sort {
  readonly column: Column;
  readonly descending: boolean;
}

const NEWEST: Sort = { column: "age", descending: false };

/** Reads `size` or `-size`; anything else is newest first. */
export function readSort(text: string): Sort {
  const name = text.replace(/^-/, "");
  const column = COLUMNS.find((it) => it === name);
  return column === undefined ? NEWEST : { column, descending: text.startsWith("-") };
}

export function sortText(sort: Sort): string {
  const text = `${sort.descending ? "-" : ""}${sort.column}`;
  return text === "age" ? "" : text;
}

/** The same column the other way round, or another column. */
export function turned(sort: Sort, column: Column): Sort {
  return { column, descending: sort.column === column && !sort.descending };
}

/** Those in which every word is found, sorted. */
export function chosen(templates: readonly Template[], search: string, sort: Sort): Template[] {
  const words = search.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const text = (template: Template) =>
    [template.name, ...template.tags, template.type, template.id, template.build_id ?? ""].join(" ").toLowerCase();
  const found = templates.filter((template) => {
    const whole = text(template);
    return words.every((word) => whole.includes(word));
  });
  const sign = sort.descending ? -1 : 1;
  return found
    .map((template, index) => ({ template, index }))
    .sort((one, other) => sign * compare(one.template, other.template, sort.column) || one.index - other.index)
    .map(({ template }) => template);
}

/** Whether a host brought it: it stands in that host's own configuration, and goes only with it. */
export function isOfHost(template: Template): boolean {
  return template.origin === "host";
}

/** The tag by which to name a template to the api, or its id where no tag points to it. */
export function reference(template: Template): string {
  const tag = template.tags.includes("latest") ? "latest" : template.tags[0];
  return tag === undefined ? template.id : `${template.name}:${tag}`;
}

/** What a deletion breaks, in sentences. */
export function consequences(template: Template, templates: readonly Template[]): string[] {
  const told: string[] = [];
  for (const tag of template.tags) {
    const name = `${template.name}:${tag}`;
    told.push(`${name} names nothing any more: builds and sandboxes that ask for it are refused.`);
  }
  const based = templates.filter((other) => other.base_template_id === template.id);
  if (based.length > 0) {
    const names = based.slice(0, 5).map((other) => reference(other));
    const more = based.length > 5 ? ` and ${based.length - 5} more` : "";
    told.push(`${names.join(", ")}${more} started from it. They stay, but their builds cannot be retried from it.`);
  }
  return told;
}

function compare(one: Template, other: Template, column: Column): number {
  switch (column) {
    case "name": return one.name.localeCompare(other.name) || (one.tags[0] ?? "").localeCompare(other.tags[0] ?? "");
    case "type": return one.type.localeCompare(other.type);
    case "size": return one.size_bytes - other.size_bytes;
    case "vcpus": return one.vcpus - other.vcpus;
    case "memory": return one.memory_mb - other.memory_mb;
    case "age": return Date.parse(other.created_at) - Date.parse(one.created_at);
  }
}
