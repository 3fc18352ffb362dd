// The parts that tables and details are made of.
import type { ComponentChildren } from 'preact';
import type { Finding, HPAMetric, ObjectName, Resource, Severity } from './answers';
import { bytes, cores, duration, isStale, percent, unknown } from './format';
import { Icon } from './icons';
import { key, link, type Tab } from './route';

/** What is the same for all rows. */
export interface Context {
  /** The program's time as Unix milliseconds. */
  now: number;
  findings: Map<number, Finding>;
}

export type ResourceName = 'cpu' | 'memory';

export const amount = { cpu: cores, memory: bytes };
export const unitOf = { cpu: 'cores', memory: 'bytes' };
export const titleOf = { cpu: 'CPU', memory: 'Memory' };

/** Why the pods of a node, with their requests and limits, and the autoscaler of a workload are not known. */
export const podsUnread = 'pods have not been read';
export const hpasUnread = 'HorizontalPodAutoscalers have not been read';

/** A value that is not known, and why. A screen reader reads why. */
export function Unknown({ why }: { why: string }) {
  return <span class="unknown" role="img" aria-label={`unknown: ${why}`} title={why}>{unknown}</span>;
}

/** The usage of a resource as a number. */
export function Usage({ of, name, error }: { of: Resource; name: ResourceName; error?: string | undefined }) {
  if (of.usage == null) return <Unknown why={error || `no ${titleOf[name]} usage is known`} />;
  return <span class="number" title={describe(of, name)}>{amount[name](of.usage)}</span>;
}

/** Returns the ratio that a resource is sorted by: to the capacity of nodes, else to the requests. */
export function ratio(r: Resource): number | null {
  const whole = r.capacity ?? r.requests;
  return r.usage == null || !whole ? null : r.usage / whole;
}

function describe(r: Resource, name: ResourceName): string {
  const parts = [`usage ${amount[name](r.usage)}`];
  if (r.requests != null) parts.push(`requests ${amount[name](r.requests)}`);
  if (r.limits != null) parts.push(`limits ${amount[name](r.limits)}`);
  if (r.capacity != null) parts.push(`allocatable ${amount[name](r.capacity)}`);
  return parts.join(', ');
}

/** A bar up to the capacity, or to the greater of requests and limits, marked at the requests; and the percentage. */
export function Share({ of, name, missing }: { of: Resource; name: ResourceName; missing: string }) {
  const part = ratio(of);
  const scale = of.capacity ?? Math.max(of.requests ?? 0, of.limits ?? 0);
  return (
    <span class="share">
      {of.usage != null && scale > 0
        ? <Bar of={of} scale={scale} title={describe(of, name)} />
        : <span class="bar none" />}
      {part == null
        ? <Unknown why={of.usage == null ? 'no usage is known' : missing} />
        : <span class="number">{percent(part)}</span>}
    </span>
  );
}

export function Bar({ of, scale, title }: { of: Resource; scale: number; title: string }) {
  const most = of.capacity ?? of.limits;
  const high = most != null && (of.usage ?? 0) >= 0.9 * most;
  const width = (v: number) => `${Math.min(100, (100 * v) / scale)}%`;
  return (
    <span class={high ? 'bar high' : 'bar'} title={title}>
      <span class="fill" style={{ width: width(of.usage ?? 0) }} />
      {of.requests != null && of.requests < scale && <span class="mark" style={{ left: width(of.requests) }} />}
    </span>
  );
}

/** The age of a sample, with a warning if it is too old. */
export function SampleAge({ sampled, window, error, now }: {
  sampled: string | null; window: number | null; error?: string | undefined; now: number;
}) {
  if (!sampled) return <Unknown why={error || 'there is no sample'} />;
  const age = (now - Date.parse(sampled)) / 1000;
  if (!isStale(age, window)) return <span class="number">{duration(age)}</span>;
  const title = `the sample is ${duration(age)} old${error ? `: ${error}` : ''}`;
  return (
    <span class="state state-warning" title={title} data-testid="stale">
      <Icon name="warning" /><span class="number">{duration(age)} old</span>
    </span>
  );
}

export function Age({ created, now }: { created: string; now: number }) {
  const at = Date.parse(created);
  if (!(at > 0)) return <Unknown why="creation time unknown" />;
  return <span class="number" title={new Date(at).toLocaleString('en-GB')}>{duration((now - at) / 1000)}</span>;
}

const order: Severity[] = ['ok', 'unknown', 'warning', 'problem'];

export function worst(findings: { status: Severity }[]): Severity {
  return order[Math.max(0, ...findings.map((f) => order.indexOf(f.status)))]!;
}

/** Returns those of ids that are worth showing. */
export function findingsOf(ids: number[] | null | undefined, context: Context): Finding[] {
  return (ids ?? []).map((id) => context.findings.get(id)).filter((f) => f != null).filter((f) => f.status !== 'ok');
}

/** The findings of a row as a number, and that it has no usage, which is an error only if it is overdue. */
export function Badges({ ids, error, overdue, context }: {
  ids: number[] | null; error?: string | undefined; overdue?: boolean | undefined; context: Context;
}) {
  const findings = findingsOf(ids, context);
  const status = worst(findings);
  const title = findings.map((f) => `${f.status}: ${f.message}`).join('\n');
  return (
    <>
      {findings.length > 0 && (
        <span class={`badge state-${status}`} title={title} data-testid="badge" data-count={findings.length}>
          <Icon name={status} />{findings.length}
          <span class="hidden"> {findings.length === 1 ? 'finding' : 'findings'}, {title}</span>
        </span>
      )}
      {error && findings.length === 0 && (
        <span class={`badge state-${overdue ? 'warning' : 'unknown'}`} title={error} data-testid="no-usage">
          <Icon name={overdue ? 'warning' : 'unknown'} />{overdue ? 'error' : 'no usage'}
          <span class="hidden">: {error}</span>
        </span>
      )}
    </>
  );
}

/** Names a HorizontalPodAutoscaler. */
export function autoscaler(namespace: string | undefined, name: string): ObjectName {
  return { kind: 'HorizontalPodAutoscaler', namespace: namespace ?? '', name };
}

/** A link to the details of an object, in the tab of its kind by default. */
export function ObjectLink({ of, tab, children, tabIndex }: {
  of: ObjectName; tab?: Tab; children?: ComponentChildren; tabIndex?: number;
}) {
  const name = of.namespace ? `${of.namespace}/${of.name}` : of.name;
  return <a href={link(of, tab)} data-object={key(of)} tabIndex={tabIndex}>{children ?? `${of.kind} ${name}`}</a>;
}

/** How bad the status of a node, a pod or an autoscaler is. The program says whether it is bad, as for the filter. */
export function severity({ status, bad }: { status: string; bad: boolean }): Severity {
  if (!bad) return 'ok';
  return /NotReady|Unknown|inactive|unable|Err|BackOff|Failed|OOMKilled/.test(status) ? 'problem' : 'warning';
}

/** The metric of an autoscaler that asks for most, against its target. */
export function Metrics({ of }: { of: HPAMetric[] | null }) {
  const metrics = of ?? [];
  const known = metrics.filter((m) => m.ratio != null).sort((a, b) => b.ratio! - a.ratio!);
  const m = known[0] ?? metrics[0];
  if (!m) return <Unknown why="it has no metrics" />;
  const values = (one: HPAMetric) => `${one.current || unknown} of ${one.target || unknown}`;
  const title = metrics.map((one) => `${one.type} ${one.name}: ${values(one)}`).join('\n');
  return (
    <span class="metrics" title={title}>
      {m.ratio != null && <RatioBar ratio={m.ratio} />}
      <span class="metric-name">{m.name}</span>
      <span class="number">{m.current || unknown} / {m.target || unknown}</span>
      {metrics.length > 1 && <span class="quiet">+{metrics.length - 1}</span>}
    </span>
  );
}

/** A bar up to twice the target, with a mark at the target. */
export function RatioBar({ ratio: r }: { ratio: number }) {
  return (
    <span class={r > 1.1 ? 'bar high' : 'bar'}>
      <span class="fill" style={{ width: `${Math.min(100, 50 * r)}%` }} />
      <span class="mark" style={{ left: '50%' }} />
    </span>
  );
}

/** Current replicas, and the desired ones if they differ. */
export function Replicas({ current, desired, min, max }: {
  current: number; desired: number; min: number; max: number;
}) {
  const none = desired === 0 && min > 0; // nothing has been calculated yet
  const title = `${current} current, ${none ? 'none calculated yet' : `${desired} desired`}, min ${min}, max ${max}`;
  return (
    <span class="number" title={title}>
      {current === desired || none ? current : <b>{current} → {desired}</b>}{' '}
      <span class="quiet">({min}–{max})</span>
    </span>
  );
}
