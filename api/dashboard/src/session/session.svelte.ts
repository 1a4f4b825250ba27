// Who is signed in. The session itself is a cookie that no script can read; the page knows whose it is and the token
// that changes must carry. A session that ends in mid-page is noticed by whatever call comes first, and signing in
// again leaves everything on the page as it was.

import { api, body, onSignedOut, useToken } from "../api/client";
import { Failure } from "../api/failure";
import type { Session } from "../api/types";

export type Standing =
  | { readonly state: "asking" }
  | { readonly state: "unreachable"; readonly failure: Failure }
  | { readonly state: "out" }
  | { readonly state: "in"; readonly session: Session }
  /** It ended while the page was used: the page stays, under the sign-in. */
  | { readonly state: "ended"; readonly session: Session };

class Sessions {
  standing = $state.raw<Standing>({ state: "asking" });

  constructor() {
    onSignedOut(() => {
      if (this.standing.state === "in") {
        this.standing = { state: "ended", session: this.standing.session };
      }
    });
  }

  /** What the signed-in key may do. */
  get mayChange(): boolean {
    return this.scope === "admin" || this.scope === "build";
  }

  get mayAdminister(): boolean {
    return this.scope === "admin";
  }

  get scope(): Session["scope"] | undefined {
    const { standing } = this;
    return standing.state === "in" || standing.state === "ended" ? standing.session.scope : undefined;
  }

  /** Asks whose cookie this is. */
  async ask(): Promise<void> {
    try {
      this.#enter(await body(api.GET("/v1/session")));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.standing = error.isSignedOut ? { state: "out" } : { state: "unreachable", failure: error };
    }
  }

  /** Throws the failure of a key that is not accepted. */
  async signIn(key: string): Promise<void> {
    this.#enter(await body(api.POST("/v1/session", { headers: { authorization: `Bearer ${key}` } })));
  }

  async signOut(): Promise<void> {
    try {
      await body(api.DELETE("/v1/session"));
    } catch (error) {
      // Over already.
      if (!(error instanceof Failure && error.isSignedOut)) throw error;
    }
    useToken(undefined);
    this.standing = { state: "out" };
  }

  #enter(session: Session): void {
    useToken(session.csrf_token);
    this.standing = { state: "in", session };
  }
}

export const sessions = new Sessions();
