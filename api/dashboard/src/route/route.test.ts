import { expect, test } from "vitest";
import { BUILDS, TEMPLATES, path, read } from "./route";

const BUILD = "bld_01h455vb4pex5vsknk084sn02q";

function parsed(address: string) {
  const [pathname = "", query = ""] = address.split("?");
  return read(pathname, query);
}

test("every page's path leads back to it", () => {
  for (const route of [
    TEMPLATES,
    { ...TEMPLATES, search: "a b&c", sort: "-size" },
    { ...TEMPLATES, create: true, from: BUILD },
    BUILDS,
    { ...BUILDS, status: "failed", name: "web" },
    { ...BUILDS, build: BUILD, step: 3, line: 17 },
    { ...BUILDS, build: BUILD, step: 0, create: true },
  ]) {
    expect(parsed(path(route))).toEqual(route);
  }
});

test("the root is the templates, and a slash at the end changes nothing", () => {
  for (const address of ["/admin", "/admin/", "/admin/templates", "/admin/templates/"]) {
    expect(parsed(address)).toEqual(TEMPLATES);
  }
  expect(parsed("/admin/builds/")).toEqual(BUILDS);
});

test("what is no page is told, and what is no value is left out", () => {
  expect(parsed("/admin/kilns").page).toBe("none");
  expect(parsed("/admin/builds/bld_x").page).toBe("none");
  expect(parsed("/admin/templates/x/y").page).toBe("none");
  expect(parsed(`/admin/builds/${BUILD}?step=-1&line=x&from=javascript:alert(1)`)).toEqual({ ...BUILDS, build: BUILD });
});

test("a path of nothing but slashes is read at once", () => {
  const began = process.cpuUsage();
  expect(parsed(`/admin${"/".repeat(1_000_000)}`)).toEqual(TEMPLATES);
  expect(parsed(`/admin${"/".repeat(500_000)}x`).page).toBe("none");
  expect(process.cpuUsage(began).user / 1000).toBeLessThan(1000);
});
