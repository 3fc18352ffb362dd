import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, clock, cores, count, duration, isStale, percent, plural, quantity } from '../src/format';

function table<In, Out>(name: string, f: (v: In) => Out, rows: [In, Out][]) {
  test(name, () => {
    for (const [input, want] of rows) assert.equal(f(input), want, `${name}(${input})`);
  });
}

table('count', count, [[null, '–'], [0, '0'], [999, '999'], [150000, '150,000']]);
table('cores', cores, [
  [null, '–'], [0, '0'], [0.0001, '<1m'], [0.25, '250m'], [0.9994, '999m'], [0.9996, '1'], [1.5, '1.5'],
  [1.256, '1.26'], [12.34, '12.3'], [640, '640'], [12345.6, '12,346'],
]);
table('bytes', bytes, [
  [undefined, '–'], [0, '0'], [512, '512'], [1024, '1Ki'], [12.5 * 2 ** 20, '12.5Mi'], [1023.7 * 2 ** 20, '1Gi'],
  [1.5 * 2 ** 30, '1.5Gi'], [200 * 2 ** 40, '200Ti'], [5000 * 2 ** 50, '5,000Pi'],
]);
table('percent', percent, [
  [null, '–'], [Infinity, '–'], [0, '0 %'], [0.004, '<1 %'], [0.756, '76 %'], [12.5, '1,250 %'],
]);
table('duration', duration, [
  [null, '–'], [-3, '0s'], [45.9, '45s'], [119, '119s'], [120, '2m'], [330, '5m30s'], [3600, '60m'], [3 * 3600, '3h'],
  [86400 * 9, '9d'], [86400 * 800, '2y'],
]);

test('plural', () => {
  assert.equal(plural(1, 'pod'), '1 pod');
  assert.equal(plural(1200, 'pod'), '1,200 pods');
});

test('quantity', () => {
  assert.equal(quantity(0.3, 'cores'), '300m');
  assert.equal(quantity(2 ** 21, 'bytes'), '2Mi');
  assert.equal(quantity(61.25, '%'), '61.3 %');
  assert.equal(quantity(1050, ''), '1,050');
  assert.equal(quantity(25_000, ''), '25k');
  assert.equal(quantity(3_200_000, ''), '3.2M');
  assert.equal(quantity(0.0123, ''), '0.012');
  assert.equal(quantity(null, ''), '–');
});

test('clock', () => {
  const noon = new Date(2026, 10, 30, 0, 3, 5).getTime();
  assert.equal(clock(noon), '00:03:05');
  assert.equal(clock(noon, false), '00:03');
});

test('a sample is stale after three windows, but not within a minute', () => {
  assert.equal(isStale(59, 10), false);
  assert.equal(isStale(61, null), true);
  assert.equal(isStale(89, 30), false);
  assert.equal(isStale(91, 30), true);
});
