import './document';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Resource } from '../src/answers';
import { Meter } from '../src/header';
import { textOf } from './text';

test('the totals say how many nodes are not in them', () => {
  const history = { start: 0, step: 0, values: null };
  const text = (of: Partial<Resource>, missing: number | null) => textOf(Meter({
    of: { usage: null, requests: null, limits: null, capacity: null, history, ...of }, name: 'cpu', missing,
  })).trim();
  assert.equal(text({ usage: 3, capacity: 12 }, 0), 'CPU 25 % 3 of 12');
  assert.equal(text({ usage: 3, capacity: 12 }, 2), 'CPU−2 nodes 25 % 3 of 12');
  assert.equal(text({ capacity: 12 }, 1), 'CPU−1 node – – of 12');
  assert.equal(text({}, null), 'CPU – – of –');
});
