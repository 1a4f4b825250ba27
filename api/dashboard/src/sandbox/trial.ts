// A sandbox to try something in. It lives as long as its panel: it is deleted when the panel goes, and when the panel
// went before the api had answered, as soon as the api has.

export interface Calls<Made extends { readonly id: string }> {
  /** Asks for the sandbox: for the same one, however often it is asked. */
  create(): Promise<Made>;
  /** Deletes it. One that is not there is deleted. */
  remove(id: string): Promise<void>;
  /** It could not be deleted. */
  left(id: string, failure: unknown): void;
}

export class Trial<Made extends { readonly id: string }> {
  #made: Made | undefined;
  #isEnded = false;

  constructor(private readonly calls: Calls<Made>) {}

  /** The sandbox, once it runs; nothing for a panel that went meanwhile. Throws what the api refuses it with. */
  async start(): Promise<Made | undefined> {
    try {
      this.#made = await this.calls.create();
    } catch (error) {
      if (this.#isEnded) return undefined;
      throw error;
    }
    if (!this.#isEnded) return this.#made;
    await this.#remove();
    return undefined;
  }

  /** The panel goes, and with it the sandbox. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    void this.#remove();
  }

  async #remove(): Promise<void> {
    const made = this.#made;
    if (made === undefined) return;
    this.#made = undefined;
    try {
      await this.calls.remove(made.id);
    } catch (error) {
      this.calls.left(made.id, error);
    }
  }
}
