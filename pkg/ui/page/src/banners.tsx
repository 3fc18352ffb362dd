// What is wrong with the connections of the page to the program, and of the program to the API server.
import type { Source, Status } from './answers';
import { clock } from './format';
import { Icon } from './icons';
import type { Answer } from './poll';

export interface Banner {
  kind: 'program' | 'session' | 'apiserver' | 'objects' | 'metrics';
  /** The most important, as a sentence. */
  lead: string;
  rest: string;
  remedy: string;
}

const labels: Record<string, string> = {
  nodes: 'Nodes', pods: 'Pods', hpas: 'HPAs', nodemetrics: 'Usage of nodes', podmetrics: 'Usage of pods',
  history: 'History',
};

export function sourceLabel(name: string): string {
  return labels[name] ?? name;
}

const usage = ['nodemetrics', 'podmetrics'];

function refused(s: Source): boolean {
  return s.state === 'denied' || s.state === 'absent';
}

/** Reports whether a source was read before the right to it was taken away, or before it was removed. */
export function isLost(s: Source): boolean {
  return refused(s) && s.updated != null;
}

/** Returns what there is to say, the most important first. */
export function bannersOf({ data, failure, at }: Answer<Status>): Banner[] {
  const shown = at > 0 ? `The page shows what it knew at ${clock(at)}.` : '';
  if (failure?.status === 0) {
    const lead = 'metrics-server ui does not answer: start it again and open the URL it prints.';
    return [{ kind: 'program', lead, rest: shown, remedy: '' }];
  }
  if (failure) return [{ kind: 'session', lead: `${failure.error}.`, rest: shown, remedy: failure.remedy }];
  // Without history the page lacks only its past, which is no reason for a banner.
  const read = (data?.sources ?? []).filter((s) => s.name !== 'history' && (isLost(s) || !refused(s)));
  const failed = read.filter((s) => s.state === 'failed' || refused(s));
  if (failed.length === 0) return [];
  if (failed.every((s) => usage.includes(s.name))) return [sourceBanner('metrics', 'No new usage', failed)];
  return [failed.length === read.length && !failed.some(refused) // a refusal is an answer
    ? sourceBanner('apiserver', 'The API server does not answer', failed)
    : sourceBanner('objects', 'Some objects cannot be read', failed)];
}

function sourceBanner(kind: Banner['kind'], what: string, failed: Source[]): Banner {
  const names = failed.map((s) => sourceLabel(s.name)).join(', ');
  const error = failed.find((s) => s.error)?.error; // the list of sources has all of them
  const kept = failed.filter((s) => s.state !== 'absent'); // objects that do not exist are not shown
  const updated = kept.map((s) => (s.updated ? Date.parse(s.updated) : 0)).filter(Boolean);
  const shown = updated.length ? `The page shows what was read until ${clock(Math.min(...updated))}.` : '';
  const remedies = [...new Set(failed.map((s) => s.remedy).filter(Boolean))].join('; ');
  return { kind, lead: `${what} (${names}).`, rest: [shown, error].filter(Boolean).join(' '), remedy: remedies };
}

/** Returns what a screen reader is told once when the banners change. */
export function announcement(banners: Banner[]): string {
  switch (banners[0]?.kind) {
    case undefined: return 'All sources answer again';
    case 'program': return 'metrics-server ui does not answer';
    case 'session': return 'This session has ended';
    case 'apiserver': return 'The API server does not answer';
    case 'objects': return 'Some objects cannot be read';
    case 'metrics': return 'There is no new usage';
  }
}

export function Banners({ of }: { of: Banner[] }) {
  return (
    <div class="banners">
      {of.map((b) => (
        <div key={b.kind} class="banner" data-testid="banner" data-kind={b.kind}>
          <Icon name="problem" /><p><b>{b.lead}</b> {b.rest} {b.remedy && <><b>Remedy:</b> {b.remedy}</>}</p>
        </div>
      ))}
    </div>
  );
}
