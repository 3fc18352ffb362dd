// The panel with the details of an object.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type {
  Condition, Container, HPADetail, NodeDetail, PodDetail, PodRow, Resources, Series, Table, WorkloadDetail,
} from './answers';
import {
  Age, ObjectLink, RatioBar, Replicas, SampleAge, Unknown, Usage, amount, autoscaler, findingsOf, hpasUnread,
  podsUnread, ratio, severity, titleOf, unitOf, type Context, type ResourceName,
} from './cells';
import { Chart } from './chart';
import { FindingCard } from './findings';
import { percent, plural, unknown } from './format';
import { Icon, State } from './icons';
import { usePoll } from './poll';
import { detailURL, format, key, route as routeOf, type Route } from './route';

/** On narrower screens the panel covers the page. */
export const narrow = matchMedia('(max-width: 900px)');

interface Props {
  route: Route;
  detail: string[];
  context: Context;
  close: () => void;
}

type AnyDetail = NodeDetail | PodDetail | WorkloadDetail | HPADetail;

export function Panel({ route, detail, context, close }: Props) {
  const { data, failure } = usePoll<AnyDetail>(detailURL(route.tab, detail));
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    if (narrow.matches) panel.current?.focus();
  }, []);
  const name = detail[detail.length - 1]!;
  const above = data ? [data.kind, data.namespace] : detail.slice(0, -1);
  return (
    <aside class="panel" ref={panel} tabIndex={-1} aria-label={`Details of ${name}`} data-testid="panel"
      data-key={data ? key(data) : ''}>
      <header>
        <div>
          <p class="quiet">{above.filter(Boolean).join(' · ')}</p>
          <h2>{name}</h2>
        </div>
        <button type="button" class="icon-button" onClick={close} aria-label="Close the details" title="Close (Escape)"
          data-testid="close"><Icon name="close" /></button>
      </header>
      {failure && failure.status !== 0 && (
        <div class="failed">
          <State severity={failure.status === 404 ? 'unknown' : 'problem'} text={failure.error} />
          {failure.remedy && <p class="quiet">{failure.remedy}</p>}
        </div>
      )}
      {!data && !failure && <p class="quiet">Loading…</p>}
      {data && <Body route={route} data={data} context={context} />}
    </aside>
  );
}

function Body({ route, data, context }: { route: Route; data: AnyDetail; context: Context }) {
  const reported = ('report' in data ? data.report?.checks ?? [] : []).map((c) => c.message);
  const findings = findingsOf(data.findings, context).filter((f) => !reported.includes(f.message));
  const overdue = 'overdue' in data && data.overdue;
  return (
    <>
      {'error' in data && data.error && (
        <p class="failed"><State severity={overdue ? 'warning' : 'unknown'} text={data.error} /></p>
      )}
      {route.tab === 'nodes' && <NodeBody node={data as NodeDetail} context={context} />}
      {route.tab === 'pods' && <PodBody pod={data as PodDetail} context={context} />}
      {route.tab === 'workloads' && <WorkloadBody workload={data as WorkloadDetail} />}
      {route.tab === 'hpas' && <HPABody hpa={data as HPADetail} />}
      {'conditions' in data && <Conditions of={data.conditions ?? []} />}
      {findings.length > 0 && (
        <Section title="Findings">{findings.map((f) => <FindingCard key={f.id} finding={f} />)}</Section>
      )}
    </>
  );
}

function Section({ title, children }: { title: string; children: ComponentChildren }) {
  return <section><h3>{title}</h3>{children}</section>;
}

/** Names and values. Those with true are long. */
function Facts({ of }: { of: [string, ComponentChildren, boolean?][] }) {
  return (
    <dl class="facts">
      {of.map(([name, value, long]) => (
        <div key={name} class={long ? 'long' : ''}><dt>{name}</dt><dd>{value}</dd></div>
      ))}
    </dl>
  );
}

function NodeBody({ node, context }: { node: NodeDetail; context: Context }) {
  return (
    <>
      <Facts of={[
        ['Status', <State severity={severity(node)} text={node.status} />],
        ['Sample', <SampleAge {...node} now={context.now} />],
        ['Window', node.window == null ? <Unknown why="there is no sample" /> : `${Math.round(node.window)} s`],
        ['Pods', node.pods == null
          ? <Unknown why={podsUnread} />
          : <>{plural(node.pods, 'pod')}{!!node.missing && `, ${node.missing} without usage`}</>],
        ['Age', <Age created={node.created} now={context.now} />],
        ['Kubelet', node.kubeletVersion],
        ['Addresses', (node.addresses ?? []).join(', '), true],
      ]} />
      <ResourceTable of={node} capacity unread={node.pods == null} />
      <UsageCharts of={node} />
      {node.pods != null && <TopPods query={{ node: node.name }} />}
    </>
  );
}

function PodBody({ pod, context }: { pod: PodDetail; context: Context }) {
  return (
    <>
      <Facts of={[
        ['Status', <State severity={severity(pod)} text={pod.status} />],
        ['Ready', pod.ready ? 'yes' : 'no'],
        ['Sample', <SampleAge {...pod} now={context.now} />],
        ['Window', pod.window == null ? <Unknown why="there is no sample" /> : `${Math.round(pod.window)} s`],
        ['Restarts', pod.restarts],
        ['Age', <Age created={pod.created} now={context.now} />],
        ['Node', pod.node
          ? <ObjectLink of={{ kind: 'Node', name: pod.node }}>{pod.node}</ObjectLink>
          : <Unknown why="it is not scheduled" />, true],
        ['Workload', <ObjectLink of={pod.workload} tab="workloads" />, true],
        ['IP', pod.ip || <Unknown why="it has no address" />],
      ]} />
      <ResourceTable of={pod} />
      <UsageCharts of={pod} />
      <Containers of={pod.containers ?? []} />
    </>
  );
}

function WorkloadBody({ workload: w }: { workload: WorkloadDetail }) {
  return (
    <>
      <Facts of={[
        ['Pods', [
          plural(w.pods, 'pod'), w.missing > 0 && `${w.missing} without usage`, w.pending > 0 && `${w.pending} pending`,
        ].filter(Boolean).join(', ')],
        ['HPA', w.hpa == null
          ? <Unknown why={hpasUnread} />
          : w.hpa ? <ObjectLink of={autoscaler(w.namespace, w.hpa)}>{w.hpa}</ObjectLink> : 'none'],
      ]} />
      <ResourceTable of={w} />
      <UsageCharts of={w} />
      <Chart name="pods" title="Running pods" unit="" steps
        lines={[{ id: 'pods', label: 'pods', series: w.podCount }]} />
      <TopPods query={{ namespace: w.namespace ?? '', workload: `${w.kind}/${w.name}` }} />
    </>
  );
}

function HPABody({ hpa }: { hpa: HPADetail }) {
  const metrics = hpa.metrics ?? [];
  const checks = (hpa.report?.checks ?? []).filter((c) => c.status !== 'ok');
  const line = (id: string, series: Series) => ({ id, label: id, series });
  return (
    <>
      <Facts of={[
        ['Status', <State severity={severity(hpa)} text={hpa.status} />],
        ['Target', <ObjectLink of={hpa.target} tab="workloads" />, true],
        ['Replicas', <Replicas {...hpa} />],
      ]} />
      {hpa.reason && <p class="quiet">{hpa.reason}</p>}
      <Chart name="replicas" title="Replicas" unit="" steps
        lines={[line('current', hpa.currentHistory), line('desired', hpa.desiredHistory)]}
        limits={[{ id: 'min', label: 'min', value: hpa.min }, { id: 'max', label: 'max', value: hpa.max }]} />
      {metrics.map((m, i) => {
        const history = hpa.metricHistory?.[i];
        return (
          <section key={`${i}`} class="metric" data-testid="metric" data-index={i}>
            <h3>{m.type} {m.name}</h3>
            <p>
              {m.ratio != null && <RatioBar ratio={m.ratio} />}{' '}
              <b>{m.current || unknown}</b> of {m.target || unknown}
              {m.ratio != null && <span class="quiet"> · ratio {m.ratio.toFixed(2)}</span>}
            </p>
            {history && (
              <Chart name={`metric-${i}`} title={m.name} heading={false} unit={history.unit}
                lines={[line('current', history.current)]}
                limits={[{ id: 'target', label: 'target', value: history.target }]} />
            )}
          </section>
        );
      })}
      <Section title="Calculation">
        {hpa.reportError && <p class="failed"><State severity="warning" text={hpa.reportError} /></p>}
        {hpa.reportText
          ? <pre data-testid="report" tabIndex={0} aria-label="The calculation of the autoscaler">{hpa.reportText}</pre>
          : !hpa.reportError && <p class="quiet">Calculating…</p>}
        {checks.map((c, i) => <FindingCard key={`${i}`} finding={c} />)}
      </Section>
    </>
  );
}

const names: ResourceName[] = ['cpu', 'memory'];

/** Returns a quantity that the object may not have. */
function optional(v: number | null, name: ResourceName, why: string) {
  return v == null ? <Unknown why={why} /> : amount[name](v);
}

/** Resources of a node, which has a capacity, or of others. If unread is set, the node's pods are not known. */
function ResourceTable({ of, capacity = false, unread = false }: {
  of: Resources; capacity?: boolean; unread?: boolean;
}) {
  const noRequests = unread ? podsUnread : 'no requests';
  const noLimits = unread ? podsUnread : capacity ? 'no pod has limits' : 'not all containers have limits';
  return (
    <table class="plain resources">
      <thead>
        <tr>
          <th>Resource</th><th>Usage</th><th>Requests</th><th>Limits</th>{capacity && <th>Allocatable</th>}
          <th>{capacity ? 'Used' : 'Of requests'}</th>
        </tr>
      </thead>
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row">{titleOf[name]}</th>
            <td><b><Usage of={of[name]} name={name} /></b></td>
            <td>{optional(of[name].requests, name, noRequests)}</td>
            <td>{optional(of[name].limits, name, noLimits)}</td>
            {capacity && <td>{optional(of[name].capacity, name, 'the capacity is not known')}</td>}
            <td>{percent(ratio(of[name]))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const chartTitles = { cpu: 'CPU, in cores', memory: 'Memory, working set' };

function UsageCharts({ of }: { of: Resources }) {
  return (
    <>
      {names.map((name) => (
        <Chart key={name} name={name} unit={unitOf[name]} title={chartTitles[name]}
          lines={[{ id: 'usage', label: 'usage', series: of[name].history }]}
          limits={[
            { id: 'requests', label: 'requests', value: of[name].requests },
            { id: 'limits', label: 'limits', value: of[name].limits },
            { id: 'capacity', label: 'allocatable', value: of[name].capacity },
          ]} />
      ))}
    </>
  );
}

function Containers({ of }: { of: Container[] }) {
  return (
    <Section title="Containers">
      <table class="plain containers">
        <thead>
          <tr>
            <th>Name</th>
            {names.map((name) => <th key={name}>{titleOf[name]}</th>)}
          </tr>
        </thead>
        <tbody>
          {of.map((c) => (
            <tr key={c.name} data-testid="container" data-name={c.name}>
              <th scope="row">
                {c.name}
                <p class="quiet">{c.state}{c.restarts > 0 && `, ${plural(c.restarts, 'restart')}`}</p>
              </th>
              {names.map((name) => (
                <td key={name} data-col={name}>
                  <b><Usage of={c[name]} name={name} /></b>
                  <p class="quiet">requests {optional(c[name].requests, name, 'no requests')}</p>
                  <p class="quiet">limits {optional(c[name].limits, name, 'no limits')}</p>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}

const top = 8;

/** The pods of a node or of a workload with the highest CPU usage. */
function TopPods({ query }: { query: Partial<Route> }) {
  const all = routeOf('pods', query);
  const parameters = new URLSearchParams({ ...query as Record<string, string>, count: `${top}` });
  const { data } = usePoll<Table<PodRow>>(`/api/pods?${parameters}`);
  return (
    <Section title="Pods with the highest CPU usage">
      <table class="plain">
        <thead><tr><th>Name</th><th>CPU</th><th>Memory</th></tr></thead>
        <tbody>
          {(data?.rows ?? []).map((pod) => (
            <tr key={key(pod)}>
              <th scope="row">
                <ObjectLink of={pod}>{query.node ? `${pod.namespace}/${pod.name}` : pod.name}</ObjectLink>
              </th>
              <td><Usage of={pod.cpu} name="cpu" error={pod.error} /></td>
              <td><Usage of={pod.memory} name="memory" error={pod.error} /></td>
            </tr>
          ))}
        </tbody>
      </table>
      {data && data.matched > top && <p><a href={format(all)}>All {plural(data.matched, 'pod')}</a></p>}
    </Section>
  );
}

function Conditions({ of }: { of: Condition[] }) {
  if (of.length === 0) return null;
  return (
    <Section title="Conditions">
      <table class="plain conditions" data-testid="conditions">
        <thead><tr><th>Type</th><th>Status</th><th>Reason and message</th></tr></thead>
        <tbody>
          {of.map((c) => (
            <tr key={c.type}>
              <th scope="row">{c.type}</th>
              <td>{c.status}</td>
              <td class="left">{[c.reason, c.message].filter(Boolean).join(': ')}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}
