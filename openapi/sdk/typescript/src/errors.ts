/** What can go wrong beside the errors of single operations, which they return. */

/** Every error of this package's own. */
export class OvenbirdError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** The API refused, and would again. */
export class Refused extends OvenbirdError {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(`${status} ${code}: ${message}`);
  }
}

/** The API did not answer, or broke off, too many times in a row. */
export class Unreachable extends OvenbirdError {}

/** The build did not end in time. */
export class Late extends OvenbirdError {}

/** Whether another try may be answered otherwise. */
export function passes(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** The error of a body that was answered with `status`. */
export function refusal(status: number, body: unknown): Refused {
  const error = (body as { error?: { code?: unknown; message?: unknown } } | undefined)?.error;
  return new Refused(status, String(error?.code ?? "unknown"), String(error?.message ?? "no reason was given"));
}

/** Resolves after so many milliseconds. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
