// The columns of the tables.
import type { ComponentChildren } from 'preact';
import type { HPARow, NodeRow, ObjectName, PodRow, Resources, WorkloadRow } from './answers';
import {
  Age, Badges, Metrics, autoscaler, ObjectLink, Replicas, SampleAge, Share, Unknown, Usage, hpasUnread, podsUnread,
  severity, titleOf, type Context, type ResourceName,
} from './cells';
import { Sparkline } from './chart';
import { count } from './format';
import { State } from './icons';
import type { Tab } from './route';

export interface Column<Row> {
  id: string;
  title: string;
  hint?: string;
  /** The column of the program's that it is sorted by; without it, the column cannot be sorted. */
  sort?: string;
  /** Texts are sorted from A to Z first, numbers from the greatest. */
  text?: boolean;
  right?: boolean;
  width: number;
  /** Its part of the width that is left over. */
  grow?: number;
  /** Columns leave a narrow table in the order of their ranks, the greatest first. Those of rank 0 stay. */
  rank: number;
  cell: (row: Row, context: Context) => ComponentChildren;
}

interface UsageRow extends ObjectName, Resources {
  error?: string;
  findings: number[] | null;
}

/** What the rows of all tabs have. */
export type AnyRow = ObjectName & { findings: number[] | null; error?: string; overdue?: boolean };

function nameColumn<Row extends AnyRow>(width: number): Column<Row> {
  return {
    id: 'name', title: 'Name', sort: 'name', text: true, width, grow: 4, rank: 0,
    cell: (row, context) => (
      <span class="name">
        <span class="clip" title={row.namespace ? `${row.namespace}/${row.name}` : row.name}>{row.name}</span>
        <Badges ids={row.findings} error={row.error} overdue={row.overdue} context={context} />
      </span>
    ),
  };
}

function namespaceColumn<Row extends ObjectName>(rank: number): Column<Row> {
  return {
    id: 'namespace', title: 'Namespace', sort: 'namespace', text: true, width: 110, grow: 1.5, rank,
    cell: (row) => <span class="clip" title={row.namespace ?? ''}>{row.namespace}</span>,
  };
}

/** The columns of a resource: the number, its share, and its past. */
function usageColumns<Row extends UsageRow>(name: ResourceName, rank: number, whole: string): Column<Row>[] {
  const title = titleOf[name];
  const missing = whole === 'requests' ? `no ${title} requests` : 'the capacity is not known';
  return [
    {
      id: name, title, hint: `${title} usage`, sort: name, right: true, width: 72, rank: 0,
      cell: (row) => <Usage of={row[name]} name={name} error={row.error} />,
    },
    {
      id: `${name}Percent`, title: `of ${whole}`, sort: `${name}Percent`, width: 132, rank: rank + 2,
      hint: `${title} usage as a part of the ${whole}; the mark in the bar is the sum of the requests`,
      cell: (row) => <Share of={row[name]} name={name} missing={missing} />,
    },
    {
      id: `${name}History`, title: 'Past', hint: `${title} usage over time`, width: 92, rank: rank + 4,
      cell: (row) => <Sparkline series={row[name].history} label={`${title} usage over time`} />,
    },
  ];
}

const sampled: Column<NodeRow | PodRow> = {
  id: 'sampled', title: 'Sample', hint: 'Age of the sample', sort: 'sampled', right: true, width: 112, rank: 5,
  cell: (row, { now }) => <SampleAge sampled={row.sampled} window={row.window} error={row.error} now={now} />,
};

const created: Column<NodeRow | PodRow> = {
  id: 'created', title: 'Age', sort: 'created', right: true, width: 62, rank: 9,
  cell: (row, { now }) => <Age created={row.created} now={now} />,
};

function podsCell({ pods, missing, podsOverdue = 0, pending = 0 }: {
  pods: number | null; missing: number | null; podsOverdue?: number; pending?: number;
}) {
  if (pods == null || missing == null) return <Unknown why={podsUnread} />;
  const title = [`${count(pods)} running`, `${count(missing)} of them without usage`];
  if (pending) title.push(`${count(pending)} pending`);
  return (
    <span class="number" title={title.join(', ')}>
      {count(pods)}
      {missing > 0 && <span class={podsOverdue ? 'state-warning' : 'quiet'}> −{count(missing)}</span>}
      {pending > 0 && <span class="quiet"> +{count(pending)}</span>}
    </span>
  );
}

const podsHint = 'Running pods; −2: two of them without usage; +2: two more are pending';

const nodes: Column<NodeRow>[] = [
  nameColumn(190),
  {
    id: 'status', title: 'Status', sort: 'status', text: true, width: 118, grow: 1, rank: 2,
    cell: (row) => <State severity={severity(row)} text={row.status} title={row.status} />,
  },
  { id: 'pods', title: 'Pods', hint: podsHint, sort: 'pods', right: true, width: 70, rank: 6, cell: podsCell },
  ...usageColumns<NodeRow>('cpu', 1, 'allocatable'),
  ...usageColumns<NodeRow>('memory', 2, 'allocatable'),
  sampled,
  created,
];

const pods: Column<PodRow>[] = [
  nameColumn(190),
  namespaceColumn(3),
  {
    id: 'status', title: 'Status', sort: 'status', text: true, width: 152, grow: 0.5, rank: 4,
    cell: (row) => <State severity={severity(row)} text={row.status} title={row.status} />,
  },
  {
    id: 'restarts', title: 'Restarts', sort: 'restarts', right: true, width: 72, rank: 8,
    cell: (row) => <span class={row.restarts ? 'number' : 'number quiet'}>{count(row.restarts)}</span>,
  },
  ...usageColumns<PodRow>('cpu', 4, 'requests'),
  ...usageColumns<PodRow>('memory', 5, 'requests'),
  {
    id: 'node', title: 'Node', sort: 'node', text: true, width: 110, grow: 1.5, rank: 11,
    cell: (row) => (row.node
      ? (
        <span class="clip" title={row.node}>
          <ObjectLink tabIndex={-1} of={{ kind: 'Node', name: row.node }}>{row.node}</ObjectLink>
        </span>
      )
      : <Unknown why="it is not scheduled" />),
  },
  { ...sampled, rank: 5 },
  { ...created, rank: 10 },
];

const workloads: Column<WorkloadRow>[] = [
  nameColumn(170),
  namespaceColumn(3),
  {
    id: 'kind', title: 'Kind', sort: 'kind', text: true, width: 104, grow: 1, rank: 4,
    cell: (row) => <span class="clip">{row.kind}</span>,
  },
  { id: 'pods', title: 'Pods', hint: podsHint, sort: 'pods', right: true, width: 70, rank: 2, cell: podsCell },
  {
    id: 'hpa', title: 'HPA', hint: 'The HorizontalPodAutoscaler that scales it', width: 100, grow: 1, rank: 11,
    cell: ({ namespace, hpa }) => (hpa == null
      ? <Unknown why={hpasUnread} />
      : hpa && (
        <span class="clip" title={hpa}>
          <ObjectLink tabIndex={-1} of={autoscaler(namespace, hpa)}>{hpa}</ObjectLink>
        </span>
      )),
  },
  ...usageColumns<WorkloadRow>('cpu', 4, 'requests'),
  ...usageColumns<WorkloadRow>('memory', 5, 'requests'),
];

const hpas: Column<HPARow>[] = [
  nameColumn(110),
  namespaceColumn(3),
  {
    id: 'target', title: 'Target', sort: 'target', text: true, width: 130, grow: 2, rank: 5,
    cell: (row) => (
      <span class="clip" title={`${row.target.kind} ${row.target.name}`}>
        <ObjectLink tabIndex={-1} of={row.target} tab="workloads">{row.target.kind} {row.target.name}</ObjectLink>
      </span>
    ),
  },
  {
    id: 'metrics', title: 'Metric / target', sort: 'ratio', width: 132, grow: 4, rank: 0,
    hint: 'The metric that asks for most; the mark in the bar is the target',
    cell: (row) => <Metrics of={row.metrics} />,
  },
  {
    id: 'replicas', title: 'Replicas', hint: 'Current → desired replicas (min–max)', sort: 'current', right: true,
    width: 104, grow: 0.5, rank: 0, cell: (row) => <Replicas {...row} />,
  },
  {
    id: 'history', title: 'Past', hint: 'Replicas over time', width: 92, rank: 4,
    cell: (row) => <Sparkline series={row.currentHistory} label="Replicas over time" />,
  },
  {
    id: 'status', title: 'Status', sort: 'status', text: true, width: 96, grow: 1, rank: 1,
    cell: (row) => <State severity={severity(row)} text={row.status} title={row.reason || row.status} />,
  },
];

// The table passes each column only rows of its own tab.
export const columnsOf = { nodes, pods, workloads, hpas } as unknown as
  Record<Exclude<Tab, 'findings'>, Column<AnyRow>[]>;

/** Returns the columns that fit into the width, and the width of each. */
export function fit<Row>(columns: Column<Row>[], width: number): { column: Column<Row>; width: number }[] {
  const kept = [...columns];
  const sum = () => kept.reduce((all, c) => all + c.width, 0);
  while (sum() > width) {
    const least = kept.reduce((a, b) => (b.rank >= a.rank ? b : a));
    if (least.rank === 0) break;
    kept.splice(kept.indexOf(least), 1);
  }
  const rest = Math.max(0, width - sum());
  const grow = kept.reduce((all, c) => all + (c.grow ?? 0), 0) || 1;
  return kept.map((column) => ({ column, width: Math.floor(column.width + (rest * (column.grow ?? 0)) / grow) }));
}
