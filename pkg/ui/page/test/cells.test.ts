import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Badges, Metrics, Unknown, severity } from '../src/cells';
import { textOf } from './text';

test('a status stands out if and only if the program calls it bad', () => {
  for (const status of ['Ready', 'Ready, cordoned', 'Completed', 'Terminating', 'limited']) {
    assert.equal(severity({ status, bad: false }), 'ok', status);
  }
  for (const status of ['Pending', 'Running', 'Completed', 'Evicted', 'Init:0/1', 'ContainerCreating']) {
    assert.equal(severity({ status, bad: true }), 'warning', status);
  }
  for (const status of ['NotReady, cordoned', 'Unknown', 'ErrImagePull', 'Init:CrashLoopBackOff', 'inactive']) {
    assert.equal(severity({ status, bad: true }), 'problem', status);
  }
});

test('a metric without a known value or target has dashes', () => {
  const text = (current: string, target: string) =>
    textOf(Metrics({ of: [{ type: 'Resource', name: 'cpu', target, current, ratio: null }] }));
  assert.equal(text('30 %', '60 %'), 'cpu30 % / 60 %');
  assert.equal(text('', ''), 'cpu– / –');
});

test('reasons can be read without a mouse', () => {
  assert.equal(Unknown({ why: 'no requests' }).props['aria-label'], 'unknown: no requests');
  const finding = {
    id: 1, check: 'nodes', status: 'problem' as const, message: 'no route', objects: null, objectCount: 0,
  };
  const context = { now: 0, findings: new Map([[1, finding]]) };
  assert.equal(textOf(Badges({ ids: [], error: 'not scheduled', context })), 'no usage: not scheduled');
  assert.equal(textOf(Badges({ ids: [1], context })), '1 finding, problem: no route');
});
