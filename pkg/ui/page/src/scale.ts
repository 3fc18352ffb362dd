// The geometry of charts: ticks, and the paths of lines. All functions are pure.

/**
 * Returns round values from 0 to the first one that is at least max, at most n + 1 of them: multiples of powers of 1024
 * for bytes, and whole numbers for counts.
 */
export function ticks(max: number, n: number, of: 'numbers' | 'bytes' | 'counts' = 'numbers'): number[] {
  if (!(max > 0)) return [0, 1];
  const raw = of === 'counts' ? Math.max(1, max / n) : max / n;
  const binary = of === 'bytes';
  const base = binary ? 1024 ** Math.floor(Math.log(raw) / Math.log(1024)) : 10 ** Math.floor(Math.log10(raw));
  const decimal = of === 'counts' && raw < 10 ? [1, 2, 3, 5, 10] : [1, 2, 2.5, 5, 10];
  const steps = binary ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : decimal;
  const step = base * (steps.find((s) => s * base >= raw) ?? steps[steps.length - 1]!);
  const all = [0];
  while (all[all.length - 1]! < max * (1 - 1e-9)) all.push(all.length * step);
  return all;
}

const minutes = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080];

/** Returns Unix seconds between start and end at round minutes of the zone that is offset seconds ahead, at most n. */
export function timeTicks(start: number, end: number, n: number, offset: number): number[] {
  const step = 60 * (minutes.find((m) => (end - start) / (60 * m) <= n) ?? minutes[minutes.length - 1]!);
  const all = [];
  for (let t = Math.ceil((start + offset) / step) * step; t <= end + offset; t += step) all.push(t - offset);
  return all;
}

/** The line around a value that has no neighbours. */
const mark = 'm-3 0h6';

/**
 * Returns the path of values, with a gap wherever one is null. A value between gaps is a short mark, because a dot is
 * hard to see. With steps a value holds until the next one.
 */
export function linePath(
  values: readonly (number | null)[], x: (i: number) => number, y: (v: number) => number, steps = false,
): string {
  let path = '';
  let open = false;
  let alone = false;
  values.forEach((v, i) => {
    if (v == null) {
      if (alone) path += mark;
      open = alone = false;
      return;
    }
    const at = `${round(x(i))}`;
    const height = `${round(y(v))}`;
    if (!open) path += `M${at} ${height}`;
    else path += steps ? `H${at}V${height}` : `L${at} ${height}`;
    alone = !open;
    open = true;
  });
  return alone ? path + mark : path;
}

/** Returns the outline of what is between values and the base. */
export function areaPath(
  values: readonly (number | null)[], x: (i: number) => number, y: (v: number) => number, base: number, steps = false,
): string {
  let path = '';
  for (let i = 0; i < values.length; i++) {
    if (values[i] == null) continue;
    const first = i;
    while (values[i + 1] != null) i++;
    const at = (n: number) => x(n + first);
    const top = linePath(values.slice(first, i + 1), at, y, steps);
    if (i > first) path += `${top}V${round(base)}H${round(x(first))}Z`;
  }
  return path;
}

function round(v: number): number {
  return Math.round(v * 10) / 10;
}

/** Returns the greatest value that is known, or 0. */
export function greatest(values: readonly (number | null | undefined)[]): number {
  let max = 0;
  for (const v of values) if (v != null && v > max) max = v;
  return max;
}

/** Returns the value at index i, or the last one; null if it is unknown, because an older value would look current. */
export function valueAt(values: readonly (number | null)[], i: number | null): number | null {
  return values.at(i ?? -1) ?? null;
}
