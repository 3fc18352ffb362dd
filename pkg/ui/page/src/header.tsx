import { Fragment } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Resource, Severity, Source, Status } from './answers';
import { isLost, sourceLabel } from './banners';
import { amount, ratio, titleOf, worst, type ResourceName } from './cells';
import { Sparkline } from './chart';
import { tally } from './findings';
import { clock, count, duration, percent, plural, unknown } from './format';
import { Icon, State, type IconName } from './icons';
import { format, route } from './route';

const themes = ['auto', 'dark', 'light'] as const;
type Theme = (typeof themes)[number];
const remembered = 'metrics-server-ui.theme';

function storedTheme(): Theme {
  try {
    return themes.find((t) => t === localStorage.getItem(remembered)) ?? 'auto';
  } catch {
    return 'auto'; // storage may be blocked
  }
}

function ThemeButton() {
  const [theme, setTheme] = useState(storedTheme);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(remembered, theme);
    } catch {
      // The theme then lasts until the page is closed.
    }
  }, [theme]);
  const next = themes[(themes.indexOf(theme) + 1) % themes.length]!;
  return (
    <button type="button" class="icon-button" data-testid="theme" onClick={() => setTheme(next)}
      aria-label={`Theme: ${theme}. Change to ${next}`} title={`Theme: ${theme}`}>
      <Icon name={theme satisfies IconName} />
    </button>
  );
}

/** How much of the cluster's allocatable resource is in use. Only nodes with usage count, or all if none has any. */
export function Meter({ of, name, missing }: { of: Resource; name: ResourceName; missing: number | null }) {
  const part = ratio(of);
  const text = `${amount[name](of.usage)} of ${amount[name](of.capacity)}`;
  const requests = of.requests != null && of.capacity ? Math.min(1, of.requests / of.capacity) : null;
  const requested = requests == null ? '' : `, ${percent(requests)} requested`;
  const without = missing ? `, ${plural(missing, 'node')} without usage` : '';
  const title = `${titleOf[name]}: ${text} allocatable in use${requested}${without}`;
  return (
    <div class="meter" title={title}>
      <span class="meter-name">{titleOf[name]}</span>
      <span class="meter-text">
        {!!missing && <span>−{plural(missing, 'node')}</span>} <b>{percent(part)}</b>{' '}
        <span class="quiet">{text}</span>
      </span>
      <span class={part != null && part >= 0.9 ? 'bar high' : 'bar'} role="meter" aria-label={`${titleOf[name]} in use`}
        aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(100 * (part ?? 0))} aria-valuetext={title}
        data-testid={`total-${name}`}>
        <span class="fill" style={{ width: `${Math.min(100, 100 * (part ?? 0))}%` }} />
        {requests != null && <span class="mark" style={{ left: `${100 * requests}%` }} />}
      </span>
      {of.history.values?.some((v) => v != null)
        && <Sparkline series={of.history} label={`${titleOf[name]} usage of the cluster over time`} />}
    </div>
  );
}

const severities: Record<Source['state'], Severity> = {
  watching: 'ok', polling: 'ok', read: 'ok', absent: 'ok', waiting: 'unknown', denied: 'warning', failed: 'problem',
};

/** How bad the state of a source is. An absent source is normal, unless it was read before. */
export function severityOf(s: Source): Severity {
  return isLost(s) ? 'warning' : severities[s.state];
}

/** How each kind of object is read. Only sources that are not well stand out. If the program is lost, none is live. */
function Sources({ of, now, lost }: { of: Source[]; now: number; lost: boolean }) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return undefined;
    const close = (e: Event) => {
      const escape = e instanceof KeyboardEvent && e.key === 'Escape';
      if (!escape && (e instanceof KeyboardEvent || box.current?.contains(e.target as Node))) return;
      if (escape) e.stopPropagation();
      setOpen(false);
    };
    document.addEventListener('keydown', close, true);
    document.addEventListener('pointerdown', close);
    return () => {
      document.removeEventListener('keydown', close, true);
      document.removeEventListener('pointerdown', close);
    };
  }, [open]);
  const bad = of.filter((s) => severityOf(s) !== 'ok');
  const status = lost ? 'problem' : worst(of.map((s) => ({ status: severityOf(s) })));
  const state = lost ? 'lost' : of.find((s) => severityOf(s) === status && status !== 'ok')?.state ?? 'ok';
  const text = lost ? 'not live' : bad.length === 0 ? 'live' : `${bad.length} of ${of.length} sources: ${state}`;
  return (
    <div class="sources" ref={box}>
      <button type="button" aria-expanded={open} data-testid="sources" data-state={state} onClick={() => setOpen(!open)}
        title="Connection to the API server">
        <State severity={status} text={text} />
      </button>
      {open && (
        <div class="popover" data-testid="source-list">
          <table class="plain">
            <thead><tr><th>Source</th><th>State</th><th>Objects</th><th>Updated</th></tr></thead>
            <tbody>
              {of.map((s) => (
                <Fragment key={s.name}>
                  <tr data-source={s.name} data-state={s.state}>
                    <th scope="row">{sourceLabel(s.name)}</th>
                    <td class="left">
                      <State severity={lost ? 'unknown' : severityOf(s)}
                        text={lost ? `was ${s.state}` : s.state} />
                    </td>
                    <td>{count(s.objects)}</td>
                    <td title={s.updated ? clock(Date.parse(s.updated)) : 'never'}>
                      {s.updated ? `${duration((now - Date.parse(s.updated)) / 1000)} ago` : unknown}
                    </td>
                  </tr>
                  {(s.error || s.remedy) && (
                    <tr class="why">
                      <td colSpan={4}>
                        {s.error && <p>{s.error}</p>}
                        {s.remedy && <p class="quiet">{s.remedy}</p>}
                      </td>
                    </tr>
                  )}
                </Fragment>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

export function Header({ status, now, lost, help }: {
  status: Status | null; now: number; lost: boolean; help: () => void;
}) {
  const lines = status?.findings.lines ?? [];
  const worstFinding = status?.findings.checked ? worst(lines) : 'unknown';
  const text = status?.findings.checked ? tally(lines) : status?.findings.running ? 'checking…' : 'not checked';
  return (
    <header class="top">
      <div class="cluster">
        <h1 data-testid="context" title="The context of the kubeconfig">{status?.context ?? 'metrics-server ui'}</h1>
        <span class="quiet clip" data-testid="server" title="The API server">{status?.server}</span>
      </div>
      {status && (
        <>
          <div class="meters">
            <Meter of={status.totals.resources.cpu} name="cpu" missing={status.totals.nodesMissing} />
            <Meter of={status.totals.resources.memory} name="memory" missing={status.totals.nodesMissing} />
          </div>
          <div class="health">
            <a href={format(route('findings'))} class="findings-link" data-testid="findings-link">
              <State severity={worstFinding} text={text} />
            </a>
            <Sources of={status.sources} now={now} lost={lost} />
          </div>
        </>
      )}
      <div class="buttons">
        <ThemeButton />
        <button type="button" class="icon-button" data-testid="help" onClick={help} aria-label="Help" title="Keys (?)">
          <Icon name="unknown" />
        </button>
      </div>
    </header>
  );
}
