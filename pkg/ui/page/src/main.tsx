import { render } from 'preact';
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Status, Table } from './answers';
import { Banners, announcement, bannersOf } from './banners';
import type { Context } from './cells';
import type { AnyRow } from './columns';
import { Panel, narrow } from './detail';
import { FindingsTab } from './findings';
import { count, plural } from './format';
import { Header } from './header';
import { Icon } from './icons';
import { usePoll, wakeAll, type Answer } from './poll';
import { format, nouns, parse, route as routeOf, tabs, type Route, type Tab } from './route';
import { DataTable } from './table';
import { Tabs, absence, titles } from './tabs';

function useRoute() {
  const [current, setCurrent] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = () => setCurrent(parse(location.hash));
    addEventListener('popstate', follow);
    addEventListener('hashchange', follow);
    return () => {
      removeEventListener('popstate', follow);
      removeEventListener('hashchange', follow);
    };
  }, []);
  const go = useCallback((to: Route, replace = false) => {
    const hash = format(to);
    if (hash !== location.hash) history[replace ? 'replaceState' : 'pushState'](null, '', hash);
    setCurrent(to);
  }, []);
  return [current, go] as const;
}

/** Draws the page again each second, because ages grow without any answer. */
function useTick(): void {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) setTick((n) => n + 1);
    }, 1000);
    return () => clearInterval(timer);
  }, []);
}

/** Returns the text that screen readers are told: that something is lost, and that it is back. */
function useAnnouncement(kinds: string, text: string): string {
  const [said, setSaid] = useState('');
  const before = useRef('');
  useEffect(() => {
    if (before.current !== kinds) setSaid(text);
    before.current = kinds;
  }, [kinds]);
  return said;
}

function App() {
  const [route, go] = useRoute();
  const [paused, setPaused] = useState(false);
  const [table, setTable] = useState<{ tab: Tab; answer: Answer<Table<AnyRow>> } | null>(null);
  const help = useRef<HTMLDialogElement>(null);
  const filter = useRef<HTMLInputElement>(null);
  useTick();
  const answer = usePoll<Status>('/api/status');
  const status = answer.data;
  const skew = useMemo(() => (status ? Date.parse(status.now) - answer.at : 0), [status]);
  const findings = useMemo(() => new Map((status?.findings.lines ?? []).map((f) => [f.id, f])), [status]);
  const context: Context = { now: Date.now() + skew, findings };

  const banners = bannersOf(answer);
  const kinds = banners.map((b) => b.kind).join();
  const said = useAnnouncement(kinds, announcement(banners));
  useEffect(() => {
    if (kinds === '') wakeAll();
  }, [kinds]);

  const { tab, detail } = route;
  useEffect(() => {
    const object = detail?.[detail.length - 1];
    document.title = `${object ?? titles[tab]} · ${status?.context ?? 'metrics-server ui'}`;
  }, [tab, detail?.join('/'), status?.context]);

  // The focus is lost with the details that had it. While they cover the page, nothing else can get it.
  const open = detail != null;
  const wasOpen = useRef(open);
  useEffect(() => {
    if (wasOpen.current && !open && document.activeElement === document.body) focusView();
    wasOpen.current = open;
  }, [open]);

  const close = () => go({ ...route, detail: null });
  const show = (to: Tab) => go(routeOf(to, { namespace: to === 'nodes' ? '' : route.namespace }));
  const onKey = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.metaKey || e.altKey || help.current?.open) return;
    const target = e.target as HTMLElement;
    if (target.closest('input, select')) {
      if (target === filter.current && ['Escape', 'Enter', 'ArrowDown'].includes(e.key)) {
        focusView();
        e.preventDefault();
      }
      return;
    }
    const number = '12345'.indexOf(e.key);
    if (e.key === 'Escape' && detail) close();
    else if (e.key === '/') filter.current?.focus();
    else if (e.key === '?') help.current?.showModal();
    else if (e.key === 'p' && tab !== 'findings') setPaused(!paused);
    else if (number >= 0 && e.key.length === 1) show(tabs[number]!);
    else return;
    e.preventDefault();
  };
  const keyed = useRef(onKey);
  keyed.current = onKey;
  useEffect(() => {
    const listen = (e: KeyboardEvent) => keyed.current(e);
    document.addEventListener('keydown', listen);
    return () => document.removeEventListener('keydown', listen);
  }, []);

  const rows = table?.tab === tab ? table.answer.data : null;
  const covered = open && narrow.matches;
  return (
    <>
      <div class="page" inert={covered}>
        <Header status={status} now={context.now} lost={answer.failure != null}
          help={() => help.current?.showModal()} />
        {!covered && <Banners of={banners} />}
        <main>
          <Tabs current={tab} status={status} show={show} />
          <Toolbar route={route} go={go} namespaces={status?.namespaces ?? []} filter={filter} rows={rows}
            paused={paused} setPaused={setPaused} />
          <div class="content">
            <div id="view" class="view" role="tabpanel" aria-labelledby={`tab-${tab}`}>
              {tab === 'findings'
                ? <FindingsTab findings={status?.findings ?? null} filter={route.filter} now={context.now} />
                : (
                  <DataTable key={tab} route={route} tab={tab} context={context} paused={paused} go={go}
                    absent={absence(tab, status?.sources ?? [])} onAnswer={(answer) => setTable({ tab, answer })} />
                )}
            </div>
            {detail && !covered && panel()}
          </div>
        </main>
      </div>
      {covered && <div class="cover"><Banners of={banners} />{panel()}</div>}
      <div class="hidden" role="status" aria-live="polite" data-testid="live">{said}</div>
      <Help dialog={help} version={status?.version ?? ''} />
    </>
  );

  function panel() {
    const key = `${tab}/${detail?.join('/')}`;
    return detail && <Panel key={key} route={route} detail={detail} context={context} close={close} />;
  }
}

/** Gives the focus to the table or the findings. */
function focusView(): void {
  document.querySelector<HTMLElement>('.scroller table, .findings')?.focus({ preventScroll: true });
}

function Toolbar({ route, go, namespaces, filter, rows, paused, setPaused }: {
  route: Route; go: (r: Route, replace?: boolean) => void; namespaces: string[];
  filter: { current: HTMLInputElement | null }; rows: Table<AnyRow> | null;
  paused: boolean; setPaused: (p: boolean) => void;
}) {
  const { tab } = route;
  const [text, setText] = useState(route.filter);
  const timer = useRef(0);
  const latest = useRef(route);
  latest.current = route;
  // The filter has changed: to the text, without spaces at its ends, or by something else than this field, which then
  // follows. Nothing can be typed before a layout effect, so no typed character is lost.
  useLayoutEffect(() => {
    clearTimeout(timer.current);
    if (text.trim() !== route.filter) setText(route.filter);
  }, [route.filter, tab]);
  const type = (value: string) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => go({ ...latest.current, filter: value.trim() }, true), 150);
  };
  const problems = route.filter === 'problem';
  const known = !route.namespace || namespaces.includes(route.namespace);
  return (
    <div class="toolbar" role="search">
      <label class="filter">
        <Icon name="search" />
        <span class="hidden">Filter</span>
        <input ref={filter} type="search" value={text} placeholder="Filter  /" spellcheck={false} autocomplete="off"
          data-testid="filter" onInput={(e) => type(e.currentTarget.value)} />
      </label>
      {tab !== 'nodes' && tab !== 'findings' && (
        <label>
          <span class="hidden">Namespace</span>
          <select value={route.namespace} data-testid="namespace"
            onChange={(e) => go({ ...route, namespace: e.currentTarget.value, workload: '' })}>
            <option value="">All namespaces</option>
            {!known && <option value={route.namespace}>{route.namespace}</option>}
            {namespaces.map((n) => <option key={n} value={n}>{n}</option>)}
          </select>
        </label>
      )}
      {tab !== 'findings' && (
        <>
          <button type="button" class="toggle" aria-pressed={problems} data-testid="problems"
            onClick={() => go({ ...route, filter: problems ? '' : 'problem' }, true)}>
            <Icon name="warning" />Problems
          </button>
          {(['node', 'workload'] as const).map((name) => route[name] && (
            <span key={name} class="scope" data-testid="scope">
              {name} <b>{route[name]}</b>
              <button type="button" class="icon-button" aria-label={`Show pods of all ${name}s`}
                onClick={() => go({ ...route, [name]: '' })}><Icon name="close" /></button>
            </span>
          ))}
          <span class="matched quiet" data-testid="matched" data-matched={rows?.matched} data-total={rows?.total}>
            {rows?.total != null && rows.matched !== rows.total && `${count(rows.matched)} of `}
            {rows?.total != null && plural(rows.total, nouns[tab])}
          </span>
          <button type="button" class="toggle" aria-pressed={paused} data-testid="pause"
            aria-label="Pause" title="Stop the table from changing (p)"
            onClick={() => setPaused(!paused)}>
            <Icon name={paused ? 'play' : 'pause'} /><span>{paused ? 'Paused' : 'Pause'}</span>
          </button>
        </>
      )}
    </div>
  );
}

const keys = [
  ['↑ ↓ or k j', 'select a row'],
  ['Page Up, Page Down, Home, End', 'move by a page, or to an end'],
  ['Enter', 'open the details'],
  ['← →', 'show other values of the chart that has the focus'],
  ['Escape', 'close the details, or leave the filter'],
  ['1 to 5', 'show nodes, pods, workloads, HPAs, findings'],
  ['/', 'filter: rows must contain every word; problem: only rows with a problem'],
  ['p', 'pause or resume the table'],
  ['?', 'show this help'],
] as const;

function Help({ dialog, version }: { dialog: { current: HTMLDialogElement | null }; version: string }) {
  return (
    <dialog ref={dialog} data-testid="help-dialog" aria-labelledby="help-title"
      onClick={(e) => e.target === dialog.current && dialog.current?.close()}>
      <div class="dialog">
        <header>
          <h2 id="help-title">Keys</h2>
          <button type="button" class="icon-button" aria-label="Close" onClick={() => dialog.current?.close()}>
            <Icon name="close" />
          </button>
        </header>
        <dl>{keys.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
        <p class="quiet">
          metrics-server ui {version}. It reads with the rights of your kubeconfig and changes nothing.{' '}
          <a href="licences.txt" target="_blank" rel="noreferrer">Licences</a>
        </p>
      </div>
    </dialog>
  );
}

render(<App />, document.getElementById('app')!);
