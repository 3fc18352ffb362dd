// Numbers and times for people. All functions are pure.

/** What stands for a value that is not known. */
export const unknown = '–';

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** Formats a count: 150,000. */
export function count(n: number | null | undefined): string {
  if (n == null) return unknown;
  return grouped.format(n);
}

/** Formats a count with its noun: 1 pod, 2 pods. */
export function plural(n: number, noun: string): string {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

/** Formats with three significant digits, but never rounds integer digits away: 1.25, 12.5, 1,250. */
function short(v: number): string {
  const digits = Math.abs(v) >= 100 ? 0 : Math.abs(v) >= 10 ? 1 : 2;
  return Number(v.toFixed(digits)).toLocaleString('en', { maximumFractionDigits: digits });
}

/** Formats CPU cores as Kubernetes writes them: 250m, 1.5. */
export function cores(v: number | null | undefined): string {
  if (v == null) return unknown;
  const milli = Math.round(v * 1000);
  if (v > 0 && milli === 0) return '<1m';
  return milli < 1000 ? `${milli}m`.replace(/^0m$/, '0') : short(v);
}

const binary = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'];

/** Formats bytes as Kubernetes writes them: 512Mi, 1.5Gi. */
export function bytes(v: number | null | undefined): string {
  if (v == null) return unknown;
  let unit = 0;
  while (v >= 1023.5 && unit < binary.length - 1) {
    v /= 1024;
    unit++;
  }
  return (unit === 0 ? count(v) : short(v)) + binary[unit];
}

/** Formats a ratio as a percentage: 0.756 is 76 %. */
export function percent(ratio: number | null | undefined): string {
  if (ratio == null || !Number.isFinite(ratio)) return unknown;
  const p = ratio * 100;
  if (p > 0 && p < 1) return '<1 %';
  return `${count(p)} %`;
}

/** Formats a value in a unit: cores, bytes, % or the metric's own, which is "". */
export function quantity(v: number | null | undefined, unit: string): string {
  if (v == null) return unknown;
  if (unit === 'cores') return cores(v);
  if (unit === 'bytes') return bytes(v);
  if (unit === '%') return `${short(v)} %`;
  const scale = [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']] as const;
  for (const [size, suffix] of scale) {
    if (Math.abs(v) >= size) return short(suffix === 'k' ? v / 1000 : v / size) + suffix;
  }
  return Math.abs(v) < 0.1 && v !== 0 ? v.toPrecision(2) : short(v);
}

/** Formats a duration in seconds as kubectl does: 45s, 5m30s, 12h, 9d. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return unknown;
  const s = Math.max(0, Math.floor(seconds));
  const m = Math.floor(s / 60);
  const h = Math.floor(m / 60);
  const d = Math.floor(h / 24);
  if (s < 120) return `${s}s`;
  if (m < 10) return s % 60 ? `${m}m${s % 60}s` : `${m}m`;
  if (m < 180) return `${m}m`;
  if (h < 48) return `${h}h`;
  if (d < 730) return `${count(d)}d`;
  return `${Math.floor(d / 365)}y`;
}

const time = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const minute = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

/** Formats the time of day, in the browser's zone, of Unix milliseconds: 14:03:05. */
export function clock(ms: number, seconds = true): string {
  return (seconds ? time : minute).format(ms);
}

/** A sample is stale if it is older than three windows, and than a minute. */
export function isStale(age: number, window: number | null): boolean {
  return age > Math.max(60, 3 * (window ?? 0));
}
