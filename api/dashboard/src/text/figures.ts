// Figures as people read them: sizes in IEC units, durations, times relative to now.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `1.2 GiB`. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const rounded = unit === 0 || value >= 100 ? Math.round(value).toString() : value.toFixed(1);
  return `${rounded} ${UNITS[unit]}`;
}

/** `512 MiB` or `2 GiB`, from MiB. */
export function memory(mebibytes: number): string {
  return mebibytes >= 1024 && mebibytes % 1024 === 0 ? `${mebibytes / 1024} GiB` : `${mebibytes} MiB`;
}

/** `840 ms`, `12.4 s`, `1 m 04 s`, `2 h 05 m`, `3 d 04 h`. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)} s`;
  return ticking(milliseconds);
}

/** As `duration`, in whole seconds: for what goes on, where tenths would flicker. */
export function ticking(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (value: number) => value.toString().padStart(2, "0");
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${two(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} m`;
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** `just now`, `4 min ago`, `3 h ago`, `2 d ago`, `in 5 min`. */
export function age(then: number, now: number): string {
  const away = Math.abs(now - then);
  const told = (value: number, unit: string) =>
    then > now ? `in ${value} ${unit}` : `${value} ${unit} ago`;
  if (away < 10_000) return then > now ? "in a moment" : "just now";
  if (away < 60_000) return told(Math.floor(away / 1000), "s");
  if (away < 3_600_000) return told(Math.floor(away / 60_000), "min");
  if (away < 86_400_000) return told(Math.floor(away / 3_600_000), "h");
  return told(Math.floor(away / 86_400_000), "d");
}

/** The exact time in the viewer's zone, with its offset. */
export function exact(then: number): string {
  const date = new Date(then);
  const two = (value: number) => value.toString().padStart(2, "0");
  const offset = -date.getTimezoneOffset();
  const sign = offset < 0 ? "-" : "+";
  const zone = `${sign}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())} ${zone}`;
}

/** The time of day to the millisecond, in the viewer's zone: for lines of a log. */
export function clock(then: number): string {
  const date = new Date(then);
  const part = (value: number, length: number) => value.toString().padStart(length, "0");
  const hours = `${part(date.getHours(), 2)}:${part(date.getMinutes(), 2)}:${part(date.getSeconds(), 2)}`;
  return `${hours}.${part(date.getMilliseconds(), 3)}`;
}

/** `1 line`, `2 lines`, `200,000 lines`. */
export function count(value: number, noun: string): string {
  return `${value.toLocaleString("en-US")} ${noun}${value === 1 ? "" : "s"}`;
}
