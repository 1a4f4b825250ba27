// Weighs what a first visit loads: the entry's scripts, compressed as the api sends them. Fails over the limit,
// because nobody notices the import that brought an editor into the first page.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_BYTES = 120 * 1024;
const manifest = JSON.parse(readFileSync("dist/page/manifest.json", "utf8"));
const seen = new Set();

function visit(key) {
  if (seen.has(key)) return;
  seen.add(key);
  for (const next of manifest[key].imports ?? []) visit(next);
}

visit("index.html");
const bytes = [...seen]
  .map((key) => gzipSync(readFileSync(`dist/page/${manifest[key].file}`)).length)
  .reduce((sum, size) => sum + size, 0);
console.log(`first load: ${(bytes / 1024).toFixed(1)} KiB of compressed script, limit ${LIMIT_BYTES / 1024} KiB`);
if (bytes > LIMIT_BYTES) process.exit(1);
