import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Table } from './answers';
import type { Context } from './cells';
import { columnsOf, fit, type AnyRow, type Column } from './columns';
import { Icon } from './icons';
import { usePoll, type Answer } from './poll';
import { format, key, nouns, pathIn, tableURL, type Route, type Tab } from './route';

/** The height of a row, which the style sheet sets as well. */
const rowHeight = 34;
const headHeight = 32;
/** Rows that are drawn above and below those in sight. */
const margin = 6;

/** The selected row. Its key is null until the row is there, and its index is -1 if none is selected. */
interface Selection {
  index: number;
  key: string | null;
}

const nothing: Selection = { index: -1, key: null };

interface Props {
  route: Route;
  tab: Exclude<Tab, 'findings'>;
  context: Context;
  paused: boolean;
  /** Why there may be no rows at all. */
  absent: string;
  go: (r: Route, replace?: boolean) => void;
  onAnswer: (a: Answer<Table<AnyRow>>) => void;
}

/** A table that has only the rows in sight, and asks only for those around them. */
export function DataTable({ route, tab, context, paused, absent, go, onAnswer }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [first, setFirst] = useState(0);
  const query = format({ ...route, detail: null });
  const [page, setPage] = useState({ query, offset: 0 });
  const [selection, setSelection] = useState(nothing);

  const inSight = Math.max(1, Math.ceil((size.height - headHeight) / rowHeight));
  const asked = Math.min(200, 20 * Math.ceil((inSight + 2 * margin + 20) / 20));
  const offset = page.query === query ? page.offset : 0;
  const url = size.height > 0 ? tableURL({ ...route, tab }, offset, asked) : null;
  const answer = usePoll<Table<AnyRow>>(url, paused);
  const matched = answer.data?.matched ?? 0;
  const rows = answer.data?.rows ?? [];
  const loaded = answer.data?.offset ?? 0;
  useEffect(() => onAnswer(answer), [answer]);

  useLayoutEffect(() => {
    const element = scroller.current!;
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  // Another query starts at its first row.
  const seen = useRef(query);
  useLayoutEffect(() => {
    if (seen.current === query) return;
    seen.current = query;
    scroller.current!.scrollTop = 0;
    setFirst(0);
    setSelection(nothing);
  }, [query]);

  // Ask for other rows if those asked for do not reach beyond those in sight. While scrolling, every answer is awaited:
  // the program would go on with a request that is given up.
  const waiting = answer.url !== url && !answer.failure;
  const latest = useRef({ first, query, waiting });
  latest.current = { first, query, waiting };
  const timer = useRef(0);
  const end = Math.min(matched, first + inSight + margin);
  const short = Math.max(0, first - margin) < offset || end > offset + asked;
  useEffect(() => {
    if (!short || timer.current) return;
    const turn = () => {
      const { first, query, waiting } = latest.current;
      timer.current = waiting ? window.setTimeout(turn, 40) : 0;
      if (!waiting) setPage({ query, offset: Math.max(0, 10 * Math.floor((first - (asked - inSight) / 2) / 10)) });
    };
    timer.current = window.setTimeout(turn, 60);
  }, [short, first, query]);
  useEffect(() => () => clearTimeout(timer.current), []);

  // The selection stays with its object as long as that is among the rows.
  const found = selection.key == null ? -1 : rows.findIndex((r) => key(r) === selection.key);
  const selected = Math.min(matched - 1, found >= 0 ? loaded + found : selection.index);
  const rowAt = (i: number): AnyRow | undefined => rows[i - loaded];
  const unnamed = selection.key == null && rowAt(selected);
  useEffect(() => {
    if (unnamed) setSelection({ index: selected, key: key(unnamed) });
  }, [unnamed]);

  const select = (index: number) => {
    const i = Math.max(0, Math.min(matched - 1, index));
    const row = rowAt(i);
    setSelection({ index: i, key: row ? key(row) : null });
    const element = scroller.current!;
    const top = i * rowHeight;
    const room = element.clientHeight - headHeight - rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top > element.scrollTop + room) element.scrollTop = top - room;
  };
  const open = (row: AnyRow | undefined) => {
    if (row) go({ ...route, detail: pathIn(tab, row) });
  };

  const onKey = (e: KeyboardEvent) => {
    const target = e.target as Element;
    if (e.ctrlKey || e.metaKey || e.altKey || matched === 0 || document.querySelector('dialog[open]')) return;
    if (target.closest('input, select, textarea')) return;
    const letter = e.key === 'j' || e.key === 'k';
    if (!letter && target !== document.body && !target.closest('.scroller, [role=tab]')) return;
    if (e.key === 'Enter' && target.closest('a, button')) return;
    const page = Math.max(1, inSight - 2);
    const to: Record<string, number> = {
      j: selected + 1, ArrowDown: selected + 1, k: selected - 1, ArrowUp: selected - 1,
      PageDown: selected + page, PageUp: selected - page, Home: 0, End: matched - 1,
    };
    if (e.key === 'Enter') open(rowAt(selected));
    else if (e.key in to) {
      select(to[e.key]!);
      // The next key, such as Enter, is for the row, and not for the button of a tab that was clicked.
      scroller.current!.querySelector('table')!.focus({ preventScroll: true });
    } else return;
    e.preventDefault();
  };
  const keyed = useRef(onKey);
  keyed.current = onKey;
  useEffect(() => {
    const listen = (e: KeyboardEvent) => keyed.current(e);
    document.addEventListener('keydown', listen);
    return () => document.removeEventListener('keydown', listen);
  }, []);

  const columns = fit(columnsOf[tab], size.width);
  const from = Math.max(0, first - margin);
  const to = Math.max(from, end);
  const indexes = Array.from({ length: to - from }, (_, i) => from + i);
  const detail = route.detail?.join('/');
  return (
    <div class="scroller" ref={scroller} data-testid="scroller"
      onScroll={() => setFirst(Math.floor(scroller.current!.scrollTop / rowHeight))}>
      <table role="grid" aria-rowcount={matched + 1} aria-busy={answer.data == null} aria-label={tab} tabIndex={0}
        aria-activedescendant={selected >= from && selected < to ? `row-${selected}` : undefined}
        data-testid="table" data-tab={tab}>
        <colgroup>
          {columns.map(({ column, width }) => <col key={column.id} style={{ width: `${width}px` }} />)}
        </colgroup>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map(({ column }) => <Head key={column.id} column={column} route={route} go={go} />)}
          </tr>
        </thead>
        <tbody>
          <Space key="above" rows={from} columns={columns.length} />
          {indexes.map((i) => {
            const row = rowAt(i);
            const current = i === selected;
            if (!row) {
              return (
                <tr key={`${i}`} class="pending" aria-rowindex={i + 2}>
                  <td colSpan={columns.length}><span class="placeholder" /></td>
                </tr>
              );
            }
            const id = key(row);
            const opened = detail === pathIn(tab, row).join('/');
            return (
              <tr key={id} id={`row-${i}`} class={`${current ? 'selected' : ''} ${opened ? 'opened' : ''}`}
                aria-rowindex={i + 2} aria-selected={current} data-testid="row" data-key={id}
                onClick={(e) => {
                  if ((e.target as Element).closest('a') || getSelection()?.type === 'Range') return;
                  setSelection({ index: i, key: id });
                  open(row);
                }}>
                {columns.map(({ column }) => (
                  <td key={column.id} data-col={column.id} class={column.right ? 'right' : ''}>
                    {column.cell(row, context)}
                  </td>
                ))}
              </tr>
            );
          })}
          <Space key="below" rows={matched - to} columns={columns.length} />
        </tbody>
      </table>
      {matched === 0 && <Empty route={route} answer={answer} absent={absent} go={go} />}
    </div>
  );
}

/** Stands for the rows that are not drawn. */
function Space({ rows, columns }: { rows: number; columns: number }) {
  if (rows <= 0) return null;
  return (
    <tr class="space" aria-hidden="true" style={{ height: `${rows * rowHeight}px` }}><td colSpan={columns} /></tr>
  );
}

function Head({ column, route, go }: { column: Column<AnyRow>; route: Route; go: Props['go'] }) {
  const { sort } = column;
  const by = route.sort || (route.tab === 'hpas' ? 'name' : 'cpu');
  const text = column.text ?? false;
  const current = sort != null && sort === by;
  const desc = route.desc ?? !text;
  const direction = desc ? 'descending' : 'ascending';
  return (
    <th scope="col" data-col={column.id} class={column.right ? 'right' : ''} aria-sort={current ? direction : undefined}
      title={column.hint}>
      {sort == null ? column.title : (
        <button type="button" data-testid={`sort-${column.id}`}
          onClick={() => go({ ...route, sort, desc: current ? !desc : null }, true)}>
          <span>{column.title}</span>
          {current && <Icon name={desc ? 'down' : 'up'} />}
        </button>
      )}
    </th>
  );
}

function Empty({ route, answer, absent, go }: {
  route: Route; answer: Answer<Table<AnyRow>>; absent: string; go: Props['go'];
}) {
  const { data, failure } = answer;
  const narrowed = route.filter || route.namespace || route.node || route.workload;
  let text = 'Loading…';
  if (failure) text = [failure.error, failure.remedy].filter(Boolean).join(': ');
  else if (data?.total) text = `No ${nouns[route.tab]} matches.`;
  else if (data) text = absent;
  return (
    <div class="empty" data-testid="empty">
      <p>{text}</p>
      {narrowed && (
        <button type="button" onClick={() => go({ ...route, filter: '', namespace: '', node: '', workload: '' })}>
          Show all {nouns[route.tab]}s
        </button>
      )}
    </div>
  );
}
