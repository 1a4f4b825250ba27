// Light, dark, or what the system says. The choice is no secret and may stay in the browser.

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const PLACE = "ovenbird.theme";

function stored(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(PLACE)) ?? "system";
  } catch {
    // Storage may be forbidden.
    return "system";
  }
}

class Choice {
  theme = $state<Theme>(stored());

  constructor() {
    this.#show();
  }

  next(): void {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length] ?? "system";
    try {
      localStorage.setItem(PLACE, this.theme);
    } catch {
      // It then holds for this visit.
    }
    this.#show();
  }

  #show(): void {
    if (this.theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }
}

export const choice = new Choice();
