// Numbers, times and texts as the page shows them.

export const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'];

const number = new Intl.NumberFormat('en');

/** A whole number with thousands separators. */
export const count = (value) => number.format(Math.round(value ?? 0));

/** `1 line`, `2 lines`. */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? '' : 's'}`;

/** Milliseconds as a short duration. */
export function duration(ms) {
  if (ms == null) return '';
  if (ms > 0 && ms < 10) return `${Number(ms.toPrecision(2))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(3)} s`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** Bytes in binary units. */
export function bytes(value) {
  let amount = value ?? 0;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (amount < 1024) return `${unit === 'B' ? amount : amount.toFixed(1)} ${unit}`;
    amount /= 1024;
  }
  return `${amount.toFixed(1)} TiB`;
}

/** A part of a whole, in percent. */
export const percent = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : '');

const pad = (value, length = 2) => String(value).padStart(length, '0');

/** The local time of day, with milliseconds. */
export function clock(time) {
  const at = new Date(time);
  const parts = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => pad(part));
  return `${parts.join(':')}.${pad(at.getMilliseconds(), 3)}`;
}

/** The local time of day of Unix seconds, with seconds where they are not 0. */
export function shortTime(seconds) {
  const at = new Date(seconds * 1000);
  const parts = [at.getHours(), at.getMinutes(), ...(at.getSeconds() ? [at.getSeconds()] : [])];
  return parts.map((part) => pad(part)).join(':');
}

const dayFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

/** The local day. */
export const day = (time) => dayFormat.format(new Date(time));

/** Time of day, with the day in front unless it is today. */
export function when(time) {
  const today = day(Date.now()) === day(time);
  return today ? clock(time) : `${day(time)} ${clock(time)}`;
}

/** Time of day without milliseconds, with the day in front unless it is today. */
export const shortWhen = (time) => when(time).slice(0, -4);

/** Local day and time. */
export const full = (time) => `${day(time)} ${clock(time)}`;

/** UTC, for a title. */
export function utc(time) {
  const at = new Date(time);
  return Number.isNaN(at.valueOf()) ? String(time) : at.toISOString();
}

/** A value for the query language, quoted. */
export const quoted = (value) => `"${String(value).replace(/["\\]/g, '\\$&')}"`;

/** Pieces of a text: `[text, isMatch]`. `ranges` are `[start, length]` in UTF-16 units. */
export function pieces(text, ranges) {
  const result = [];
  let at = 0;
  for (const [start, length] of ranges ?? []) {
    if (start < at || start + length > text.length) continue;
    if (start > at) result.push([text.slice(at, start), false]);
    result.push([text.slice(start, start + length), true]);
    at = start + length;
  }
  if (at < text.length) result.push([text.slice(at), false]);
  return result;
}
