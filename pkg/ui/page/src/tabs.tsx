import type { Source, Status } from './answers';
import { count } from './format';
import { nouns, tabs, type Tab } from './route';

export const titles: Record<Tab, string> = {
  nodes: 'Nodes', pods: 'Pods', workloads: 'Workloads', hpas: 'HPAs', findings: 'Findings',
};

/** The source that the rows of a tab are from. */
const sourceOf: Record<Tab, string> = { nodes: 'nodes', pods: 'pods', workloads: 'pods', hpas: 'hpas', findings: '' };

/** Returns why a tab has no rows at all. */
export function absence(tab: Tab, sources: Source[]): string {
  const source = sources.find((s) => s.name === sourceOf[tab]);
  if (!source || source.state === 'waiting') return 'Waiting for the API server…';
  const why = [source.error, source.remedy].filter(Boolean).join(': ');
  return why || `There are no ${tab === 'hpas' ? 'HorizontalPodAutoscaler' : nouns[tab]}s.`;
}

/** Returns how many rows each tab has, null where nothing was read or checked yet. */
export function countsOf(status: Status | null): Record<Tab, number | null> {
  const { nodes = null, pods = null, workloads = null, hpas = null } = status?.totals ?? {};
  const checked = status?.findings.checked != null;
  const lines = status?.findings.lines ?? [];
  const findings = checked ? lines.filter((f) => f.status !== 'ok').length : null;
  return { nodes, pods, workloads, hpas, findings };
}

export function Tabs({ current, status, show }: { current: Tab; status: Status | null; show: (t: Tab) => void }) {
  const counts = countsOf(status);
  const move = (e: KeyboardEvent) => {
    const step = e.key === 'ArrowRight' ? 1 : e.key === 'ArrowLeft' ? -1 : 0;
    if (!step) return;
    const to = tabs[(tabs.indexOf(current) + step + tabs.length) % tabs.length]!;
    show(to);
    document.getElementById(`tab-${to}`)?.focus();
    e.preventDefault();
  };
  return (
    <div class="tabs" role="tablist" aria-label="What to show" onKeyDown={move}>
      {tabs.map((t) => (
        <button key={t} type="button" role="tab" id={`tab-${t}`} aria-selected={t === current} aria-controls="view"
          tabIndex={t === current ? 0 : -1} data-testid={`tab-${t}`} onClick={() => show(t)}>
          {titles[t]} <span class="count" data-testid="count">{counts[t] == null ? '' : count(counts[t])}</span>
        </button>
      ))}
    </div>
  );
}
