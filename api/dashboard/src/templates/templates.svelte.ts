// All templates, read page by page: there are hundreds at most, and filters and sorting want them all.

import { api, body, caught } from "../api/client";
import type { Failure } from "../api/failure";
import { signIns } from "../api/signins";
import type { Template } from "../api/types";

const PAGE = 200;
const PAGES_MAX = 20;
const LOOK_MS = 30_000;

export class Templates {
  list = $state.raw<readonly Template[]>([]);
  failure = $state.raw<Failure | undefined>();
  isLoaded = $state(false);
  /** There are more than are shown. */
  isCut = $state(false);

  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #ending = new AbortController();

  constructor() {
    void this.look();
  }

  stop(): void {
    this.#ending.abort();
    clearTimeout(this.#timer);
  }

  async look(): Promise<void> {
    clearTimeout(this.#timer);
    const before = signIns.count;
    try {
      const list: Template[] = [];
      let cursor: string | undefined;
      let pages = 0;
      do {
        const query = { limit: PAGE, ...(cursor === undefined ? {} : { cursor }) };
        const page = await body(api.GET("/v1/admin/templates", { params: { query } }));
        list.push(...page.items);
        cursor = page.next_cursor;
        pages += 1;
      } while (cursor !== undefined && pages < PAGES_MAX);
      this.list = list;
      this.isCut = cursor !== undefined;
      this.isLoaded = true;
      this.failure = undefined;
    } catch (error) {
      this.failure = caught(error);
    } finally {
      if (this.failure?.isSignedOut === true) await signIns.after(before, this.#ending.signal);
      const wait = this.failure?.isSignedOut === true ? 0 : LOOK_MS;
      if (!this.#ending.signal.aborted) this.#timer = setTimeout(() => void this.look(), wait);
    }
  }
}
