// Parts of the page that are loaded when they are needed.

/** Before the second attempt and the third, in milliseconds: a network that changes breaks off what is on its way, and is there again at once. */
const PAUSES_MS: readonly number[] = [200, 1_000];

/** What `load` imports; what breaks off is asked for again. A rejection that nobody waits for yet is no error of the page's. */
export function late<T>(load: () => Promise<T>, pauses: readonly number[] = PAUSES_MS): Promise<T> {
  const loading = attempt(load, pauses);
  loading.catch(() => undefined);
  return loading;
}

async function attempt<T>(load: () => Promise<T>, [pause, ...pauses]: readonly number[]): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (pause === undefined) throw error;
    await new Promise((resolve) => setTimeout(resolve, pause));
    return attempt(load, pauses);
  }
}
