// The page that is shown now, kept in the address bar.

import { type Route, path, read } from "./route";

class Router {
  route = $state.raw<Route>(read(location.pathname, location.search));

  constructor() {
    window.addEventListener("popstate", () => {
      this.route = read(location.pathname, location.search);
    });
  }

  /** Shows a page; going back leads to the one before. */
  go(route: Route): void {
    history.pushState(null, "", path(route));
    this.route = route;
  }

  /** Changes the shown page in place: filters, an opened step. */
  refine(route: Route): void {
    history.replaceState(null, "", path(route));
    this.route = route;
  }

  /** For links: a plain click goes there without loading the page anew. */
  follow(event: MouseEvent, route: Route): void {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    this.go(route);
  }
}

export const router = new Router();
