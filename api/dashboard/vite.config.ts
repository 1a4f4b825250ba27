// How the dashboard is built. The api serves `dist` below /admin under a Content-Security-Policy without
// `unsafe-inline`, so nothing may be inlined: no script or style in the page, no asset as a data: URL.
import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// `cargo dev up --dashboard-dev` says where the api is.
const api = process.env.OVENBIRD_API ?? "http://127.0.0.1:8080";

const document = JSON.parse(readFileSync(new URL("../../openapi/openapi.json", import.meta.url), "utf8")) as {
  paths: Record<string, unknown>;
};

export default defineConfig({
  define: { __API_PATHS__: JSON.stringify(Object.keys(document.paths)) },
  base: "/admin/",
  plugins: [svelte()],
  build: {
    target: "es2022",
    // `dist` itself is always there, so that cargo can watch it.
    outDir: "dist/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    // Vite does not ask again for a part's stylesheet that broke off on its way.
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    manifest: "manifest.json",
  },
  server: {
    host: "127.0.0.1",
    strictPort: true,
    // The api's cookie is for its own origin; through this proxy the page has the same one.
    proxy: { "/v1": { target: api, changeOrigin: false } },
  },
  test: {
    include: ["src/**/*.test.ts"],
    environment: "node",
  },
});
