import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columnsOf, fit, type AnyRow } from '../src/columns';
import { textOf } from './text';

test('columns leave a narrow table, but never the numbers', () => {
  for (const [tab, stay] of [
    ['nodes', 'name cpu memory'], ['pods', 'name cpu memory'], ['workloads', 'name cpu memory'],
    ['hpas', 'name metrics replicas'],
  ] as const) {
    const ids = (width: number) => fit(columnsOf[tab], width).map((c) => c.column.id);
    assert.equal(ids(345).join(' '), stay, tab);
    assert.deepEqual(ids(2000), columnsOf[tab].map((c) => c.id));
    let before = 0;
    for (let width = 300; width < 2000; width += 10) {
      const now = ids(width).length;
      assert.ok(now >= before, `${tab}: ${now} columns in ${width} px, and ${before} in less`);
      before = now;
    }
  }
});

test('columns fill the width', () => {
  for (const width of [345, 800, 1440]) {
    const sum = fit(columnsOf.pods, width).reduce((all, c) => all + c.width, 0);
    assert.ok(sum <= width && sum > width - 20, `${sum} of ${width} px`);
  }
});

test('numbers of pods that are not known are no zeros', () => {
  const pods = columnsOf.nodes.find((c) => c.id === 'pods')!;
  const text = (row: object) => textOf(pods.cell(row as AnyRow, { now: 0, findings: new Map() })).trim();
  assert.equal(text({ pods: null, missing: null }), '–');
  assert.equal(text({ pods: 0, missing: 0 }), '0');
  assert.equal(text({ pods: 12, missing: 2, pending: 1 }), '12 −2 +1');
});

test('that a workload has no autoscaler is said only if it is known', () => {
  const hpa = columnsOf.workloads.find((c) => c.id === 'hpa')!;
  const text = (row: object) => textOf(hpa.cell(row as AnyRow, { now: 0, findings: new Map() }));
  assert.equal(text({ hpa: null }), '–');
  assert.equal(text({ hpa: '' }), '');
  assert.equal(text({ hpa: 'web' }), 'web');
});
