// The browser tests: Debian's Chromium against a real platform, which `api/dev/tests/dev/dashboard.rs` starts.
// OVENBIRD_BROWSER_TESTS takes a part of the names of those to run.
import { defineConfig } from "@playwright/test";

const only = process.env.OVENBIRD_BROWSER_TESTS;

export default defineConfig({
  testDir: "tests",
  ...(only === undefined ? {} : { grep: new RegExp(only) }),
  // Builds run in emulated machines, and this machine may have a single core to spare.
  timeout: 240_000,
  expect: { timeout: 60_000 },
  workers: 1,
  retries: 0,
  forbidOnly: true,
  reporter: [["list"]],
  outputDir: "test-results",
  use: {
    baseURL: process.env.OVENBIRD_DASHBOARD,
    viewport: { width: 1280, height: 900 },
    permissions: ["clipboard-read", "clipboard-write"],
    screenshot: "only-on-failure",
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: process.env.OVENBIRD_CHROMIUM ?? "/usr/bin/chromium",
      // The tests may run as root, where Chromium has no sandbox.
      args: ["--no-sandbox"],
    },
  },
});
