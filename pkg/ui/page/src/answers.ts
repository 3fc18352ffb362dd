// The answers of the program, as pkg/ui/answers.go defines them.

export interface Status {
  version: string;
  context: string;
  server: string;
  now: string;
  since: string;
  sources: Source[];
  totals: Totals;
  namespaces: string[];
  findings: Findings;
}

export type SourceState = 'waiting' | 'watching' | 'polling' | 'failed' | 'denied' | 'absent' | 'read';

export interface Source {
  name: string;
  state: SourceState;
  error?: string;
  remedy?: string;
  updated: string | null;
  objects: number | null;
}

export interface Totals {
  nodes: number | null;
  pods: number | null;
  workloads: number | null;
  hpas: number | null;
  nodesMissing: number | null;
  podsMissing: number | null;
  resources: Resources;
}

export interface Resources {
  cpu: Resource;
  memory: Resource;
}

export interface Resource {
  usage: number | null;
  requests: number | null;
  limits: number | null;
  capacity: number | null;
  history: Series;
}

export interface Series {
  start: number;
  step: number;
  values: (number | null)[] | null;
}

export type Severity = 'ok' | 'unknown' | 'warning' | 'problem';

export interface Findings {
  running: boolean;
  checked: string | null;
  error?: string;
  status: Severity;
  lines: Finding[] | null;
}

export interface Line {
  check: string;
  status: Severity;
  message: string;
  cause?: string;
  remedy?: string;
  nodes?: string[];
}

export interface Finding extends Line {
  id: number;
  /** The first hundred. */
  objects: ObjectName[] | null;
  objectCount: number;
}

export interface ObjectName {
  kind: string;
  namespace?: string;
  name: string;
}

export interface Table<Row> {
  total: number | null;
  matched: number;
  offset: number;
  rows: Row[] | null;
}

export interface NodeRow extends ObjectName, Resources {
  status: string;
  bad: boolean;
  pods: number | null;
  missing: number | null;
  podsOverdue?: number;
  sampled: string | null;
  window: number | null;
  error?: string;
  overdue?: boolean;
  findings: number[] | null;
  created: string;
}

export interface PodRow extends ObjectName, Resources {
  node: string;
  workload: ObjectName;
  status: string;
  bad: boolean;
  ready: boolean;
  restarts: number;
  sampled: string | null;
  window: number | null;
  error?: string;
  overdue?: boolean;
  findings: number[] | null;
  created: string;
}

export interface WorkloadRow extends ObjectName, Resources {
  pods: number;
  missing: number;
  podsOverdue?: number;
  pending: number;
  hpa: string | null;
  findings: number[] | null;
}

export interface HPARow extends ObjectName {
  target: ObjectName;
  min: number;
  max: number;
  current: number;
  desired: number;
  metrics: HPAMetric[] | null;
  currentHistory: Series;
  status: string;
  bad: boolean;
  reason?: string;
  findings: number[] | null;
}

export interface HPAMetric {
  type: string;
  name: string;
  target: string;
  current: string;
  ratio: number | null;
}

export interface NodeDetail extends NodeRow {
  kubeletVersion: string;
  addresses: string[] | null;
  conditions: Condition[] | null;
}

export interface PodDetail extends PodRow {
  containers: Container[] | null;
  ip: string;
  conditions: Condition[] | null;
}

export interface Container extends Resources {
  name: string;
  state: string;
  restarts: number;
}

export interface WorkloadDetail extends WorkloadRow {
  podCount: Series;
}

export interface HPADetail extends HPARow {
  desiredHistory: Series;
  metricHistory: HPASeries[] | null;
  conditions: Condition[] | null;
  report: { checks: Line[] | null } | null;
  reportText: string;
  reportError?: string;
}

export interface HPASeries {
  current: Series;
  target: number | null;
  unit: string;
}

export interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
}

/** The answer to a request that fails. */
export interface Problem {
  error: string;
  remedy: string;
}
