import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columnsOf, fit } from '../src/columns';

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
