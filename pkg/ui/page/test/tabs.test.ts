import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Source, SourceState, Status } from '../src/answers';
import { absence, countsOf } from '../src/tabs';

const unread = { nodes: null, pods: null, workloads: null, hpas: null };

function status(totals: object, findings: object): Status {
  return { totals: { ...unread, ...totals }, findings: { checked: null, lines: null, ...findings } } as Status;
}

test('what was never counted has no count', () => {
  const none = { ...unread, findings: null };
  assert.deepEqual(countsOf(null), none);
  assert.deepEqual(countsOf(status({}, {})), none);
  assert.deepEqual(countsOf(status({ nodes: 3 }, { lines: [] })), { ...none, nodes: 3 });
});

test('zero is a count', () => {
  const totals = { nodes: 0, pods: 0, workloads: 0, hpas: 0 };
  assert.deepEqual(countsOf(status(totals, { checked: '2026-11-30T12:00:00Z' })), { ...totals, findings: 0 });
});

test('checks that passed are no findings', () => {
  const lines = [{ status: 'problem' }, { status: 'ok' }, { status: 'unknown' }];
  assert.equal(countsOf(status({}, { checked: '2026-11-30T12:00:00Z', lines })).findings, 2);
});

test('a table without rows says why', () => {
  const of = (state: SourceState, error?: string): Source[] => [
    { name: 'pods', state, error, remedy: error && 'grant list', updated: null, objects: null },
  ];
  assert.equal(absence('workloads', of('watching')), 'There are no workloads.');
  assert.equal(absence('pods', of('denied', 'forbidden')), 'forbidden: grant list');
  assert.equal(absence('pods', of('waiting')), 'Waiting for the API server…');
  assert.equal(absence('pods', []), 'Waiting for the API server…');
});
