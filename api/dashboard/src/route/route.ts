// Which page a path names, and the path of a page. Pure. Everything that one may want to send to a colleague is in
// the path: the tab, its filters, a build, its step, a line of its log.

import { withoutEnding } from "../text/end";

export interface TemplatesPage {
  readonly page: "templates";
  readonly search: string;
  readonly sort: string;
  /** The dialog that creates a template; from a previous build where one is named. */
  readonly create: boolean;
  readonly from?: string;
}

export interface BuildsPage {
  readonly page: "builds";
  readonly status: string;
  readonly name: string;
  /** The build that is open. */
  readonly build?: string;
  readonly step?: number;
  /** `seq` of a line in its log. */
  readonly line?: number;
  readonly create: boolean;
  readonly from?: string;
}

export interface NoPage {
  readonly page: "none";
  readonly path: string;
}

export type Route = TemplatesPage | BuildsPage | NoPage;

export const TEMPLATES: TemplatesPage = { page: "templates", search: "", sort: "", create: false };
export const BUILDS: BuildsPage = { page: "builds", status: "", name: "", create: false };

const BASE = "/admin";
const BUILD_ID = /^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$/;

export function read(pathname: string, query: string): Route {
  const parts = withoutEnding(pathname, "/").split("/").slice(2);
  const values = new URLSearchParams(query);
  const text = (name: string) => values.get(name) ?? "";
  const number = (name: string) => {
    const value = Number(values.get(name) ?? Number.NaN);
    return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const from = BUILD_ID.test(text("from")) ? text("from") : undefined;
  const create = values.has("create");
  const [page, build, ...more] = parts;
  if (page === undefined || (page === "templates" && build === undefined)) {
    return { page: "templates", search: text("search"), sort: text("sort"), create, from };
  }
  if (page === "builds" && more.length === 0 && (build === undefined || BUILD_ID.test(build))) {
    return {
      page: "builds",
      status: text("status"),
      name: text("name"),
      build,
      step: build === undefined ? undefined : number("step"),
      line: build === undefined ? undefined : number("line"),
      create,
      from,
    };
  }
  return { page: "none", path: pathname };
}

export function path(route: Route): string {
  if (route.page === "none") return route.path;
  const values = new URLSearchParams();
  const set = (name: string, value: string | number | undefined) => {
    if (value !== undefined && value !== "") values.set(name, String(value));
  };
  if (route.page === "templates") {
    set("search", route.search);
    set("sort", route.sort);
  } else {
    set("status", route.status);
    set("name", route.name);
    set("step", route.step);
    set("line", route.line);
  }
  if (route.create) values.set("create", "");
  set("from", route.from);
  const query = values.toString().replace(/(^|&)create=(?=&|$)/, "$1create");
  const inner = route.page === "builds" && route.build !== undefined ? `/${route.build}` : "";
  return `${BASE}/${route.page}${inner}${query === "" ? "" : `?${query}`}`;
}
