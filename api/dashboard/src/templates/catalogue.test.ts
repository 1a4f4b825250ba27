import { expect, test } from "vitest";
import type { Template } from "../api/types";
import { chosen, consequences, isOfHost, readSort, reference, sortText, turned } from "./catalogue";

function template(name: string, more: Partial<Template> = {}): Template {
  return {
    id: `tpl_${name}`, name, tags: ["latest"], type: "image", vcpus: 1, memory_mb: 512, size_bytes: 1,
    origin: "build", default_env: {}, created_at: "2026-01-01T00:00:00Z", ...more,
  };
}

const list = [
  template("web", { size_bytes: 30, type: "snapshot", created_at: "2026-01-03T00:00:00Z" }),
  template("base", { size_bytes: 10, tags: ["v1", "latest"] }),
  template("api", { size_bytes: 20, created_at: "2026-01-02T00:00:00Z" }),
];
const names = (search: string, sort: string) => chosen(list, search, readSort(sort)).map((it) => it.name);

test("templates are sorted by any column in both directions, newest first by itself", () => {
  expect(names("", "")).toEqual(["web", "api", "base"]);
  expect(names("", "-age")).toEqual(["base", "api", "web"]);
  expect(names("", "size")).toEqual(["base", "api", "web"]);
  expect(names("", "-name")).toEqual(["web", "base", "api"]);
  expect(names("", "nonsense")).toEqual(["web", "api", "base"]);
});

test("every word must be found somewhere", () => {
  expect([names("SNAP", ""), names("v1 base", ""), names("web v1", "")]).toEqual([["web"], ["base"], []]);
});

test("a column that is chosen again turns round", () => {
  const once = turned(readSort(""), "size");
  expect([sortText(once), sortText(turned(once, "size")), sortText(turned(once, "age"))]).toEqual(["size", "-size", ""]);
});

test("a template is named by its tag, or by its id where it has none", () => {
  expect(reference(template("a", { tags: ["v1", "latest"] }))).toBe("a:latest");
  expect(reference(template("a", { tags: ["v1"] }))).toBe("a:v1");
  expect(reference(template("a", { tags: [] }))).toBe("tpl_a");
});

test("only what neither a build nor a sandbox made is a host's own", () => {
  expect(isOfHost(template("minimal", { origin: "host" }))).toBe(true);
  expect(isOfHost(template("built", { build_id: "bld_1" }))).toBe(false);
  expect(isOfHost(template("saved", { origin: "sandbox" }))).toBe(false);
});

test("a deletion names its tags and what started from it", () => {
  const base = list[1]!;
  const told = consequences(base, [...list, template("child", { base_template_id: base.id })]);
  expect(told.length).toBe(3);
  expect(told.join(" ")).toMatch(/base:v1 names nothing.*base:latest names nothing.*child:latest started from it/);
  expect(consequences(template("lonely", { tags: [] }), [])).toEqual([]);
});
