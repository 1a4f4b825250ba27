// The list of builds, kept up to date: events while the api streams them, a look every 3 s while it does not. Which
// of both it is stands on the page.

import { api, body, caught, notice } from "../api/client";
import { type Connection, type Event, follow } from "../api/events";
import type { Failure } from "../api/failure";
import { signIns } from "../api/signins";
import type { Build, Queue } from "../api/types";
import { features } from "../features";
import type { Liveness } from "../parts/Live.svelte";
import { type Feed, type Filter, changed, empty, firstPage, nextPage, removed, show, unseen } from "./feed";

const PAGE = 50;
const POLL_MS = 3_000;
/** Events tell everything; a look now and then finds what they would have lost. */
const LOOK_MS = 10_000;
/** Active builds below the first page that one look asks for singly. */
const SINGLY_MAX = 20;

export class Builds {
  feed = $state.raw<Feed>(empty({ status: "", name: "" }));
  queue = $state.raw<Queue | undefined>();
  failure = $state.raw<Failure | undefined>();
  /** When the list was last known to be right. */
  freshAt = $state(0);
  liveness = $state.raw<Liveness>({ state: "connecting" });
  isLoadingMore = $state(false);
  /** Somebody reads: new rows are held back. */
  isRead = false;

  readonly #ending = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isLive = false;

  constructor(filter: Filter) {
    this.feed = empty(filter);
    void this.#look();
    if (features.events) this.#follow();
  }

  stop(): void {
    this.#ending.abort();
    clearTimeout(this.#timer);
  }

  filter(filter: Filter): void {
    if (filter.status === this.feed.filter.status && filter.name === this.feed.filter.name) return;
    this.feed = empty(filter);
    void this.look();
  }

  /** Looks now. */
  look(): Promise<void> {
    clearTimeout(this.#timer);
    return this.#look();
  }

  show(): void {
    this.feed = show(this.feed);
  }

  /** A build as some other call just told it. */
  changed(build: Build): void {
    this.feed = changed(this.feed, build, this.isRead);
  }

  removed(id: string): void {
    this.feed = removed(this.feed, id);
  }

  async more(): Promise<void> {
    const { cursor, filter } = this.feed;
    if (cursor === undefined || this.isLoadingMore) return;
    this.isLoadingMore = true;
    try {
      const page = await body(api.GET("/v1/admin/builds", { params: { query: this.#query(filter, cursor) } }));
      if (this.feed.filter === filter) this.feed = nextPage(this.feed, page.items, page.next_cursor);
    } catch (error) {
      this.failure = caught(error);
    } finally {
      this.isLoadingMore = false;
    }
  }

  #query(filter: Filter, cursor?: string) {
    return {
      limit: PAGE,
      ...(filter.status === "" ? {} : { status: filter.status }),
      ...(filter.name === "" ? {} : { name: filter.name }),
      ...(cursor === undefined ? {} : { cursor }),
    };
  }

  async #look(): Promise<void> {
    const { filter } = this.feed;
    const before = signIns.count;
    try {
      const page = await body(api.GET("/v1/admin/builds", { params: { query: this.#query(filter) } }));
      if (this.#ending.signal.aborted || this.feed.filter !== filter) return;
      this.feed = firstPage(this.feed, page.items, page.next_cursor, this.isRead);
      await Promise.all(unseen(this.feed, page.items).slice(0, SINGLY_MAX).map((id) => this.#one(id)));
      await this.#lookAtQueue(page.items);
      this.failure = undefined;
      this.freshAt = Date.now();
      if (!this.#isLive) this.liveness = { state: "polling" };
    } catch (error) {
      this.failure = caught(error);
      if (!this.#isLive && this.failure.mayPass) this.liveness = { state: "offline", until: Date.now() + POLL_MS };
    } finally {
      if (this.failure?.isSignedOut === true) void this.#wait(before);
      else this.#schedule();
    }
  }

  /** Nobody is signed in: the next look is after the next sign-in. */
  async #wait(before: number): Promise<void> {
    if (!this.#isLive) this.liveness = { state: "signed-out" };
    await signIns.after(before, this.#ending.signal);
    if (!this.#ending.signal.aborted) await this.look();
  }

  async #one(id: string): Promise<void> {
    try {
      this.changed(await body(api.GET("/v1/admin/builds/{id}", { params: { path: { id } } })));
    } catch (error) {
      const failure = caught(error);
      if (failure.status === 404) this.removed(id);
      else throw failure;
    }
  }

  async #lookAtQueue(builds: readonly Build[]): Promise<void> {
    if (!features.queue) return;
    const isAsked = builds.some((build) => build.status === "queued");
    this.queue = isAsked
      ? await body(api.GET("/v1/admin/queue", { params: { query: { limit: 200 } } }))
      : undefined;
  }

  #schedule(): void {
    if (this.#ending.signal.aborted) return;
    clearTimeout(this.#timer);
    const hasQueue = this.queue !== undefined;
    this.#timer = setTimeout(() => void this.#look(), this.#isLive && !hasQueue ? LOOK_MS : POLL_MS);
  }

  #follow(): void {
    void follow(
      {
        path: () => "/v1/admin/events/stream",
        take: (events) => this.#take(events),
        said: (connection) => this.#said(connection),
      },
      this.#ending.signal,
    );
  }

  #take(events: readonly Event[]): "more" | "again" {
    let again = false;
    for (const event of events) {
      if (event.type === "error") again = true;
      else if (event.type === "build") this.changed(JSON.parse(event.data) as Build);
    }
    this.freshAt = Date.now();
    return again ? "again" : "more";
  }

  #said(connection: Connection): void {
    if (connection.state === "signed-out") notice(connection.failure);
    const wasLive = this.#isLive;
    this.#isLive = connection.state === "live";
    if (this.#isLive) this.liveness = { state: "live" };
    else if (connection.state === "signed-out") this.liveness = { state: "signed-out" };
    else if (wasLive) this.liveness = { state: "polling" };
    // What happened before the stream was there is found by a look.
    if (this.#isLive !== wasLive) void this.look();
  }
}
