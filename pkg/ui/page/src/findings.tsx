import { useEffect, useState } from 'preact/hooks';
import type { Finding, Findings, Line, ObjectName, Severity } from './answers';
import { ObjectLink } from './cells';
import { clock, duration, plural } from './format';
import { Icon, State } from './icons';
import { post, wakeAll } from './poll';
import { key } from './route';

const listed = 12;

/** A finding with its cause and its remedy. */
export function FindingCard({ finding: f }: { finding: Line & Partial<Finding> }) {
  return (
    <article class={`finding finding-${f.status}`} data-testid="finding" data-id={f.id} data-status={f.status}>
      <header><State severity={f.status} text={f.status} /> <span class="quiet">{f.check}</span></header>
      <p class="message">{f.message}</p>
      {f.cause && <p class="because"><span class="label">Cause</span> <span>{f.cause}</span></p>}
      {f.remedy && <p class="because"><span class="label">Remedy</span> <span>{f.remedy}</span></p>}
      <Objects of={f.objects ?? []} count={f.objectCount ?? 0} />
    </article>
  );
}

function Objects({ of, count }: { of: ObjectName[]; count: number }) {
  const [all, setAll] = useState(false);
  if (of.length === 0) return null;
  return (
    <p class="objects">
      {(all ? of : of.slice(0, listed)).map((o) => <ObjectLink key={key(o)} of={o} />)}
      {!all && of.length > listed && (
        <button type="button" onClick={() => setAll(true)}>and {Math.max(count, of.length) - listed} more</button>
      )}
      {all && count > of.length && <span class="quiet">and {count - of.length} more</span>}
    </p>
  );
}

/** Returns the findings in words: 2 problems, 1 warning. */
export function tally(lines: Line[]): string {
  const number = (status: Severity) => lines.filter((l) => l.status === status).length;
  const parts = [];
  if (number('problem')) parts.push(plural(number('problem'), 'problem'));
  if (number('warning')) parts.push(plural(number('warning'), 'warning'));
  if (number('unknown')) parts.push(`${number('unknown')} not checked`);
  return parts.join(', ') || 'no findings';
}

/** The tab of all findings. The filter's words must all be in a finding. */
export function FindingsTab({ findings, filter, now }: { findings: Findings | null; filter: string; now: number }) {
  const [failure, setFailure] = useState('');
  useEffect(() => setFailure(''), [findings?.checked]); // a later run has succeeded
  if (!findings) return <div class="findings"><p class="quiet">Loading…</p></div>;
  const lines = findings.lines ?? [];
  const words = filter.toLowerCase().split(/\s+/).filter((w) => w && w !== 'problem');
  const matches = (f: Finding) => {
    const names = (f.objects ?? []).map((o) => `${o.kind} ${o.namespace ?? ''} ${o.name}`);
    const text = [f.status, f.check, f.message, f.cause, f.remedy, ...names].join(' ').toLowerCase();
    return words.every((w) => text.includes(w));
  };
  const kept = lines.filter(matches);
  const bad = kept.filter((f) => f.status !== 'ok');
  const ok = kept.filter((f) => f.status === 'ok');
  const check = async () => {
    const failed = await post('/api/doctor');
    setFailure(failed ? [failed.error, failed.remedy].filter(Boolean).join(': ') : '');
    wakeAll();
  };
  const checked = findings.checked ? Date.parse(findings.checked) : null;
  return (
    <div class="findings" tabIndex={0} aria-label="Findings">
      <div class="findings-head">
        <button type="button" class="primary" data-testid="check-again" disabled={findings.running} onClick={check}>
          <Icon name="refresh" />{findings.running ? 'Checking…' : 'Check again'}
        </button>
        <span data-testid="checked" class="quiet">
          {checked == null
            ? 'Not checked yet.'
            : `Checked at ${clock(checked)}, ${duration((now - checked) / 1000)} ago: ${tally(lines)}.`}
        </span>
      </div>
      {[findings.error, failure].filter(Boolean).map((text) => (
        <p class="failed"><State severity="problem" text={`The doctor could not run: ${text}`} /></p>
      ))}
      {bad.map((f) => <FindingCard key={f.id} finding={f} />)}
      {bad.length === 0 && checked != null && (
        <p><State severity="ok" text={lines.length === kept.length ? 'Nothing is wrong.' : 'No finding matches.'} /></p>
      )}
      {ok.length > 0 && (
        <section class="well">
          <h2>Passed</h2>
          {ok.map((f) => (
            <div key={f.id} class="ok-line" data-testid="finding" data-id={f.id} data-status="ok">
              <State severity="ok" text="ok" /> <span class="quiet">{f.check}</span> <span>{f.message}</span>
            </div>
          ))}
        </section>
      )}
    </div>
  );
}
