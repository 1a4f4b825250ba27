// The time as the page shows it: it moves once a second while the page can be seen.

class Now {
  ms = $state(Date.now());

  constructor() {
    setInterval(() => {
      if (!document.hidden) this.ms = Date.now();
    }, 1000);
    document.addEventListener("visibilitychange", () => {
      this.ms = Date.now();
    });
  }
}

export const now = new Now();
