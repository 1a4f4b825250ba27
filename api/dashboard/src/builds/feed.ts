// The list of builds as the page holds it: pages from the api, single builds that changed, and new ones that wait
// at the top until they do not push rows away under somebody's eyes. Pure: a state and functions from state to state.

import type { Build, BuildStatus } from "../api/types";
import { isActive } from "./status";

export interface Filter {
  readonly status: BuildStatus | "";
  readonly name: string;
}

export interface Feed {
  readonly filter: Filter;
  /** Newest first. */
  readonly builds: readonly Build[];
  /** New builds that are not shown yet, newest first. */
  readonly held: readonly Build[];
  readonly cursor: string | undefined;
  /** The first page was read. */
  readonly isLoaded: boolean;
}

/** Builds that are held at most; more can be reached by filters. */
export const BUILDS_MAX = 2_000;

export function empty(filter: Filter): Feed {
  return { filter, builds: [], held: [], cursor: undefined, isLoaded: false };
}

/** Whether a build belongs into the list. The api filters by the whole name. */
export function fits(build: Build, filter: Filter): boolean {
  return (filter.status === "" || build.status === filter.status) && (filter.name === "" || build.name === filter.name);
}

/** The first page, read again. `isRead` says that somebody reads: then what is new is held back. */
export function firstPage(feed: Feed, items: readonly Build[], cursor: string | undefined, isRead: boolean): Feed {
  if (!feed.isLoaded) return { ...feed, builds: items, held: [], cursor, isLoaded: true };
  let next = feed;
  for (const build of [...items].reverse()) next = changed(next, build, isRead);
  const oldest = items.at(-1);
  // What is gone from within the page was deleted, or fits the filter no longer.
  const present = new Set(items.map((build) => build.id));
  const isGone = (build: Build) =>
    !present.has(build.id) && (cursor === undefined || (oldest !== undefined && compare(build, oldest) < 0));
  return {
    ...next,
    builds: next.builds.filter((build) => !isGone(build)),
    held: next.held.filter((build) => !isGone(build)),
  };
}

/** The page after the last one. */
export function nextPage(feed: Feed, items: readonly Build[], cursor: string | undefined): Feed {
  const present = new Set(feed.builds.map((build) => build.id));
  const builds = [...feed.builds, ...items.filter((build) => !present.has(build.id))];
  return { ...feed, builds, cursor: builds.length >= BUILDS_MAX ? undefined : cursor };
}

/** One build as it is now: known or new. */
export function changed(feed: Feed, build: Build, isRead: boolean): Feed {
  const replace = (list: readonly Build[]) => list.map((other) => (other.id === build.id ? newer(other, build) : other));
  if (feed.builds.some((other) => other.id === build.id)) {
    // One that ends while it is looked at stays where it is, whatever the filter says.
    return { ...feed, builds: replace(feed.builds) };
  }
  if (feed.held.some((other) => other.id === build.id)) return { ...feed, held: replace(feed.held) };
  if (!fits(build, feed.filter)) return feed;
  const top = feed.builds[0];
  const isNewest = top === undefined || compare(build, top) < 0;
  if (isRead && isNewest) return { ...feed, held: insert(feed.held, build) };
  const last = feed.builds.at(-1);
  // Further down than anything that was read: its page brings it.
  if (feed.cursor !== undefined && last !== undefined && compare(build, last) > 0) return feed;
  return { ...feed, builds: insert(feed.builds, build).slice(0, BUILDS_MAX) };
}

/** A build that is not there any more. */
export function removed(feed: Feed, id: string): Feed {
  const without = (list: readonly Build[]) => list.filter((build) => build.id !== id);
  return { ...feed, builds: without(feed.builds), held: without(feed.held) };
}

/** Shows what was held back. */
export function show(feed: Feed): Feed {
  if (feed.held.length === 0) return feed;
  return { ...feed, builds: [...feed.held, ...feed.builds].slice(0, BUILDS_MAX), held: [] };
}

/** Active builds that a new first page did not tell of: they must be asked for one by one. */
export function unseen(feed: Feed, items: readonly Build[]): string[] {
  const present = new Set(items.map((build) => build.id));
  return feed.builds.filter((build) => isActive(build.status) && !present.has(build.id)).map((build) => build.id);
}

function compare(one: Build, other: Build): number {
  // Ids are ordered by time; the time itself may be the same.
  if (one.created_at !== other.created_at) return Date.parse(one.created_at) > Date.parse(other.created_at) ? -1 : 1;
  return one.id > other.id ? -1 : one.id < other.id ? 1 : 0;
}

function insert(list: readonly Build[], build: Build): Build[] {
  const place = list.findIndex((other) => compare(build, other) < 0);
  return place < 0 ? [...list, build] : [...list.slice(0, place), build, ...list.slice(place)];
}

const ORDER: Record<BuildStatus, number> = {
  queued: 0,
  running: 1,
  cancelling: 2,
  succeeded: 3,
  failed: 3,
  cancelled: 3,
};

/** The later one of two answers about one build, which may overtake each other. Logs come with single builds only. */
function newer(known: Build, told: Build): Build {
  const rank = (build: Build) => [isActive(build.status) ? 0 : 1, build.attempt, ORDER[build.status], build.current_step];
  const [one, other] = [rank(known), rank(told)];
  const place = one.findIndex((value, index) => value !== other[index]);
  const isOlder = place >= 0 && (one[place] ?? 0) > (other[place] ?? 0) && !(known.status === "running" && told.status === "queued");
  if (isOlder) return known;
  return told.logs === undefined && known.logs !== undefined ? { ...told, logs: known.logs } : told;
}
