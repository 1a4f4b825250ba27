// Sandboxes that were to be deleted with their panel, and were not. They are told on every page until they are gone.

import { api, body, caught } from "../api/client";
import type { Failure } from "../api/failure";

export interface LeftSandbox {
  readonly id: string;
  readonly failure: Failure;
}

/** Deletes a sandbox, also while the page is being left. One that is not there is deleted. */
export async function remove(id: string): Promise<void> {
  try {
    await body(api.DELETE("/v1/sandboxes/{id}", { params: { path: { id } }, keepalive: true }));
  } catch (error) {
    if (caught(error).status !== 404) throw error;
  }
}

class Left {
  list = $state.raw<readonly LeftSandbox[]>([]);

  add(id: string, failure: Failure): void {
    this.list = [...this.list.filter((other) => other.id !== id), { id, failure }];
  }

  forget(id: string): void {
    this.list = this.list.filter((other) => other.id !== id);
  }

  async retry(id: string): Promise<void> {
    try {
      await remove(id);
      this.forget(id);
    } catch (error) {
      this.add(id, caught(error));
    }
  }
}

export const left = new Left();
