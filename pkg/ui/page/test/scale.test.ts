import assert from 'node:assert/strict';
import { test } from 'node:test';
import { areaPath, greatest, linePath, ticks, timeTicks, valueAt } from '../src/scale';

test('ticks are round, and reach beyond the greatest value', () => {
  assert.deepEqual(ticks(0, 4), [0, 1]);
  assert.deepEqual(ticks(0.9, 4), [0, 0.25, 0.5, 0.75, 1]);
  assert.deepEqual(ticks(10, 4), [0, 2.5, 5, 7.5, 10]);
  assert.deepEqual(ticks(10.1, 4), [0, 5, 10, 15]);
  assert.deepEqual(ticks(10, 4, 'counts'), [0, 3, 6, 9, 12]);
  assert.deepEqual(ticks(2, 4, 'counts'), [0, 1, 2]);
  assert.deepEqual(ticks(3 * 2 ** 30, 4, 'bytes'), [0, 1, 2, 3].map((n) => n * 2 ** 30));
  assert.deepEqual(ticks(900 * 2 ** 20, 4, 'bytes'), [0, 256, 512, 768, 1024].map((n) => n * 2 ** 20));
});

test('ticks are few for every greatest value', () => {
  for (let max = 1e-4; max < 1e15; max *= 1.37) {
    for (const of of ['numbers', 'bytes', 'counts'] as const) {
      const all = ticks(max, 4, of);
      assert.ok(all.length >= 2 && all.length <= 5 && all[all.length - 1]! >= max * (1 - 1e-9), `${max}: ${all}`);
    }
  }
});

test('ticks of time are at round minutes of the zone', () => {
  assert.deepEqual(timeTicks(1000, 2000, 4, 0), [1200, 1500, 1800]);
  assert.deepEqual(timeTicks(1000, 2000, 4, 60), [1140, 1440, 1740]);
});

test('lines have gaps, marks and steps', () => {
  const x = (i: number) => 10 * i;
  const y = (v: number) => v;
  assert.equal(linePath([1, 2, null, 3, 4], x, y), 'M0 1L10 2M30 3L40 4');
  assert.equal(linePath([null, 1, null], x, y), 'M10 1m-3 0h6');
  assert.equal(linePath([1, null, 2], x, y), 'M0 1m-3 0h6M20 2m-3 0h6');
  assert.equal(linePath([1, 2.04], x, y, true), 'M0 1H10V2');
  assert.equal(linePath([null, null], x, y), '');
});

test('areas reach down to the base, with the same gaps', () => {
  const x = (i: number) => 10 * i;
  const y = (v: number) => v;
  assert.equal(areaPath([1, 2, null, 3, null, 4, 5], x, y, 9), 'M0 1L10 2V9H0ZM50 4L60 5V9H50Z');
});

test('the greatest value ignores those that are not known', () => {
  assert.equal(greatest([null, 2, undefined, 3, null]), 3);
  assert.equal(greatest([]), 0);
});

test('an old value does not stand for one that is not known', () => {
  assert.equal(valueAt([1, 2], null), 2);
  assert.equal(valueAt([1, null], null), null);
  assert.equal(valueAt([1, null, 3], 1), null);
  assert.equal(valueAt([], null), null);
});
