// Preprocessing only: TypeScript in components. Everything else stands in vite.config.ts.
import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

export default { preprocess: vitePreprocess() };
