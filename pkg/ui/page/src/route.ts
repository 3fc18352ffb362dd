// What the page shows, as the fragment of its URL. All functions are pure.
import type { ObjectName } from './answers';

export const tabs = ['nodes', 'pods', 'workloads', 'hpas', 'findings'] as const;
export type Tab = (typeof tabs)[number];

/** What an object of a tab is called. */
export const nouns: Record<Tab, string> = {
  nodes: 'node', pods: 'pod', workloads: 'workload', hpas: 'HPA', findings: 'finding',
};

export interface Route {
  tab: Tab;
  /** The path of the object in the panel, below the tab's. */
  detail: string[] | null;
  /** The column, if it is not the default one. */
  sort: string;
  desc: boolean | null;
  filter: string;
  namespace: string;
  /** Only the pods of this node, or of this workload, which is KIND/NAME. */
  node: string;
  workload: string;
}

const texts = ['sort', 'filter', 'namespace', 'node', 'workload'] as const;

/** Returns the route of a tab. */
export function route(tab: Tab, rest: Partial<Route> = {}): Route {
  return { tab, detail: null, sort: '', desc: null, filter: '', namespace: '', node: '', workload: '', ...rest };
}

/** Parses location.hash. Whatever is not known leads to the nodes. */
export function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const [tab, ...detail] = path.split('/').filter(Boolean).map(decode);
  const known = tabs.find((t) => t === tab);
  if (!known) return route('nodes');
  const r = route(known, { detail: detail.length ? detail : null });
  const parameters = new URLSearchParams(query);
  for (const name of texts) r[name] = parameters.get(name) ?? '';
  if (parameters.has('desc')) r.desc = parameters.get('desc') === '1';
  return r;
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s;
  }
}

/** Formats r for location.hash: the reverse of parse. */
export function format(r: Route): string {
  const parameters = new URLSearchParams();
  for (const name of texts) if (r[name]) parameters.set(name, r[name]);
  if (r.desc != null) parameters.set('desc', r.desc ? '1' : '0');
  const query = parameters.toString();
  return '#/' + [r.tab, ...(r.detail ?? [])].map(encodeURIComponent).join('/') + (query && `?${query}`);
}

/** Returns the URL of a page of the tab's table. */
export function tableURL(r: Route, offset: number, count: number): string {
  const parameters = new URLSearchParams();
  for (const name of texts) if (r[name]) parameters.set(name, r[name]);
  if (r.desc != null) parameters.set('desc', r.desc ? '1' : '0');
  parameters.set('offset', `${offset}`);
  parameters.set('count', `${count}`);
  return `/api/${r.tab}?${parameters}`;
}

/** Returns the URL of the details of the object in the panel. */
export function detailURL(tab: Tab, detail: string[]): string {
  return '/api/' + [tab, ...detail].map(encodeURIComponent).join('/');
}

/** Names o uniquely: Kind/namespace/name. */
export function key(o: ObjectName): string {
  return `${o.kind}/${o.namespace ?? ''}/${o.name}`;
}

/** Returns the path of o below a tab. The tab decides, because a workload may be of any kind, even of kind Pod. */
export function pathIn(tab: Tab, o: ObjectName): string[] {
  const namespace = o.namespace ?? '';
  switch (tab) {
    case 'nodes': return [o.name];
    case 'workloads': return [namespace, o.kind, o.name];
    default: return [namespace, o.name];
  }
}

const tabOfKind = new Map<string, Tab>([['Node', 'nodes'], ['Pod', 'pods'], ['HorizontalPodAutoscaler', 'hpas']]);

/** Returns the fragment that opens o. Links to workloads must name their tab. */
export function link(o: ObjectName, tab: Tab = tabOfKind.get(o.kind) ?? 'workloads'): string {
  return format(route(tab, { detail: pathIn(tab, o) }));
}
