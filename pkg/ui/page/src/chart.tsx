import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Series } from './answers';
import { Unknown } from './cells';
import { clock, quantity } from './format';
import { areaPath, greatest, linePath, ticks, timeTicks, valueAt } from './scale';

const sparkWidth = 72;
const sparkHeight = 20;

/** A small chart from zero to its greatest value, without axes. */
export function Sparkline({ series, label }: { series: Series | null | undefined; label: string }) {
  const values = series?.values ?? [];
  const max = greatest(values);
  if (!values.some((v) => v != null)) return <Unknown why="no values yet" />;
  const slots = Math.max(10, values.length); // the last value is at the right end, also if there are few
  const x = (i: number) => 4 + ((i + slots - values.length) * (sparkWidth - 8)) / (slots - 1); // 4: half a mark
  const y = (v: number) => sparkHeight - 2 - (max > 0 ? (v / max) * (sparkHeight - 4) : 0);
  return (
    <svg class="spark" width={sparkWidth} height={sparkHeight} role="img" aria-label={label}>
      <path class="area" d={areaPath(values, x, y, sparkHeight - 1)} />
      <path d={linePath(values, x, y)} />
    </svg>
  );
}

/** Returns the width of the element that the reference is set on. */
export function useWidth<E extends Element>() {
  const ref = useRef<E>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const measure = () => setWidth(element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [ref, width] as const;
}

export interface Line {
  id: string;
  label: string;
  series: Series;
}

export interface Limit {
  id: string;
  label: string;
  value: number | null | undefined;
}

const height = 168;
const margin = { top: 14, right: 10, bottom: 22, left: 52 };
/** A limit that is more than so many times the greatest value is named, but not drawn: it would flatten the line. */
const reach = 5;

/**
 * Lines over time with limits as horizontal lines. All lines have the same times. Values hold until the next one if
 * steps is set, as numbers of replicas do. The pointer or the arrow keys select the time whose values are shown. To
 * screen readers, the chart is a slider, whose text they read when it moves.
 */
export function Chart({ name, title, unit, lines, limits = [], steps = false, heading = true }: {
  name: string; title: string; unit: string; lines: Line[]; limits?: Limit[]; steps?: boolean; heading?: boolean;
}) {
  const [ref, width] = useWidth<HTMLDivElement>();
  const [at, setAt] = useState<number | null>(null);
  const series = lines[0]!.series;
  const all = lines.map((l) => l.series.values ?? []);
  const length = Math.max(0, ...all.map((v) => v.length));
  const known = all.map((v) => v.findIndex((one) => one != null)).filter((i) => i >= 0);
  const from = Math.min(length - 12, ...known); // without the time before the first value; negative if there are few
  const last = length - 1;
  const peak = greatest(all.flat());
  const set = limits.filter((l): l is Limit & { value: number } => l.value != null);
  const drawn = set.filter((l) => peak === 0 || l.value <= peak * reach);
  const highest = Math.max(peak, ...drawn.map((l) => l.value));
  const levels = ticks(highest, 4, unit === 'bytes' ? 'bytes' : steps ? 'counts' : 'numbers');
  const top = levels[levels.length - 1]!;
  const x = (i: number) => margin.left + ((i - from) * (width - margin.left - margin.right)) / Math.max(1, last - from);
  const y = (v: number) => height - margin.bottom - (v / top) * (height - margin.top - margin.bottom);
  const shown = (l: Line) => (l.series.values ?? []).map((v, i) => (i < from ? null : v));
  const time = (i: number) => series.start + i * series.step;
  const zone = -60 * new Date().getTimezoneOffset();
  const times = timeTicks(time(from), time(last), Math.max(2, Math.floor(width / 90)), zone);
  const index = at == null ? last : Math.min(last, Math.max(from, at));
  const text = (v: number | null | undefined) => quantity(v, unit);
  const value = (l: Line) => text(valueAt(l.series.values ?? [], at == null ? null : index));
  const move = (e: { offsetX: number }) => {
    const i = from + ((e.offsetX - margin.left) * (last - from)) / (width - margin.left - margin.right);
    setAt(Math.max(0, Math.round(i)));
  };
  const onKey = (e: KeyboardEvent) => {
    const to: Record<string, number> = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last };
    if (!(e.key in to) || e.ctrlKey || e.metaKey || e.altKey) return;
    setAt(Math.max(0, Math.min(last, to[e.key]!)));
    e.preventDefault();
  };
  const summary = [...lines.map((l) => `${l.label} ${value(l)}`), ...set.map((l) => `${l.label} ${text(l.value)}`)];
  let labelled = -100; // the height of the last label, which the next one must not cover
  return (
    <figure class="chart" ref={ref}>
      <figcaption>
        <span class="chart-title">{heading && title}</span>
        <span class="chart-time">{at != null && length > 0 ? clock(1000 * time(index)) : ''}</span>
      </figcaption>
      {known.length === 0
        ? <p class="quiet">No values yet.</p>
        : (
          <svg width={width} height={height} role="slider" tabIndex={0} aria-label={title} aria-valuemin={0}
            aria-valuemax={last} aria-valuenow={index}
            aria-valuetext={`${clock(1000 * time(index))}: ${summary.join(', ')}`}
            data-testid="chart" data-chart={name} onPointerMove={move} onPointerLeave={() => setAt(null)}
            onKeyDown={onKey} onBlur={() => setAt(null)}>
            {levels.map((v) => (
              <g key={`y${v}`} class="tick">
                <line x1={margin.left} x2={width - margin.right} y1={y(v)} y2={y(v)} />
                <text x={margin.left - 6} y={y(v) + 4} text-anchor="end">{text(v)}</text>
              </g>
            ))}
            {times.map((t) => {
              const at = x((t - series.start) / series.step);
              const end = at > width - 20; // a centred label would reach beyond the chart
              return (
                <text key={`x${t}`} class="time" x={end ? width : at} y={height - 6}
                  text-anchor={end ? 'end' : 'middle'}>
                  {clock(1000 * t, false)}
                </text>
              );
            })}
            <path class="area" d={areaPath(shown(lines[0]!), x, y, y(0), steps)} />
            {lines.map((l, i) => {
              const line = linePath(shown(l), x, y, steps);
              return <path key={l.id} class={`line line-${i}`} data-line={l.id} d={line} />;
            })}
            {drawn.map((l) => (
              <g key={l.id} class={`limit limit-${l.id}`} data-limit={l.id}>
                <line x1={margin.left} x2={width - margin.right} y1={y(l.value)} y2={y(l.value)} />
              </g>
            ))}
            {[...drawn].sort((a, b) => a.value - b.value).map((l) => {
              const at = y(l.value);
              if (Math.abs(labelled - at) < 13) return null;
              labelled = at;
              return (
                <text key={l.id} class="label" x={width - margin.right - 2} y={at - 4} text-anchor="end">
                  {l.label}
                </text>
              );
            })}
            {at != null && (
              <line class="cursor" x1={x(index)} x2={x(index)} y1={margin.top} y2={height - margin.bottom} />
            )}
          </svg>
        )}
      <ul class="legend">
        {lines.map((l, i) => (
          <li key={l.id} data-value={l.id}><Swatch kind={`line line-${i}`} /> {l.label} <b>{value(l)}</b></li>
        ))}
        {set.map((l) => (
          <li key={l.id}>
            <Swatch kind={`limit limit-${l.id}`} /> {l.label} <b>{text(l.value)}</b>
            {drawn.includes(l) || known.length === 0 ? '' : ' (above the chart)'}
          </li>
        ))}
      </ul>
    </figure>
  );
}

function Swatch({ kind }: { kind: string }) {
  return (
    <svg class={`swatch ${kind}`} width="18" height="8" aria-hidden="true"><line x1="0" x2="18" y1="4" y2="4" /></svg>
  );
}
