import './document';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Source, SourceState, Status } from '../src/answers';
import { announcement, bannersOf } from '../src/banners';
import { severityOf } from '../src/header';

const at = new Date(2026, 10, 30, 12, 0, 5).getTime();
const read = new Date(2026, 10, 30, 11, 58, 0).toISOString();

const all = ['nodes', 'pods', 'hpas', 'nodemetrics', 'podmetrics'];

function answer(failed: string[], failure: { status: number; error: string; remedy: string } | null = null) {
  const sources = [...all, 'history'].map((name): Source => {
    const bad = failed.includes(name);
    const state: SourceState = bad ? 'failed' : 'watching';
    const [error, remedy] = bad ? [`${name} refused`, 'start it'] : ['', ''];
    return { name, state, error, remedy, updated: read, objects: 1 };
  });
  return { url: '/api/status', data: { sources } as Status, at, failure };
}

function said(...of: Parameters<typeof answer>) {
  return bannersOf(answer(...of)).map((b) => [b.kind, b.lead, b.rest, b.remedy]);
}

test('nothing is said while all sources are well', () => {
  assert.deepEqual(said([]), []);
});

test('the loss of the program hides the state of its sources', () => {
  assert.deepEqual(said(['nodes'], { status: 0, error: 'x', remedy: '' }), [[
    'program', 'metrics-server ui does not answer: start it again and open the URL it prints.',
    'The page shows what it knew at 12:00:05.', '',
  ]]);
});

test('a rejected session is explained by the program', () => {
  const failure = { status: 403, error: 'this page belongs to another browser', remedy: 'run metrics-server ui again' };
  assert.deepEqual(said([], failure), [[
    'session', 'this page belongs to another browser.', 'The page shows what it knew at 12:00:05.',
    'run metrics-server ui again',
  ]]);
});

test('the API server does not answer if nothing can be read', () => {
  assert.deepEqual(said(all), [[
    'apiserver', 'The API server does not answer (Nodes, Pods, HPAs, Usage of nodes, Usage of pods).',
    'The page shows what was read until 11:58:00. nodes refused', 'start it',
  ]]);
});

test('what was never read does not count as an answer', () => {
  const lost = answer(['nodes', 'pods', 'podmetrics']);
  for (const s of lost.data.sources) {
    if (s.name === 'hpas') [s.state, s.updated] = ['denied', null];
    if (s.name === 'nodemetrics') [s.state, s.updated] = ['absent', null];
  }
  assert.equal(bannersOf(lost)[0]?.kind, 'apiserver');
});

test('what was read, and is denied or absent now, is a loss', () => {
  const lost = (states: Record<string, SourceState>, updated: string | null = read) => {
    const a = answer(Object.keys(states));
    for (const s of a.data.sources) if (states[s.name]) [s.state, s.updated] = [states[s.name]!, updated];
    return bannersOf(a).map((b) => [b.kind, b.lead, b.rest]);
  };
  const shown = 'The page shows what was read until 11:58:00.';
  assert.deepEqual(lost({ pods: 'denied', hpas: 'failed' }), [
    ['objects', 'Some objects cannot be read (Pods, HPAs).', `${shown} pods refused`],
  ]);
  assert.deepEqual(lost({ podmetrics: 'denied' }), [
    ['metrics', 'No new usage (Usage of pods).', `${shown} podmetrics refused`],
  ]);
  // What is absent is not shown any more.
  assert.deepEqual(lost({ podmetrics: 'absent' }), [
    ['metrics', 'No new usage (Usage of pods).', 'podmetrics refused'],
  ]);
  // The API server answers if it refuses.
  assert.deepEqual(lost(Object.fromEntries(all.map((name) => [name, 'denied']))).map((b) => b[0]), ['objects']);
  assert.deepEqual(lost({ pods: 'denied', podmetrics: 'absent', history: 'absent' }, null), []);
});

test('a source that was read and is absent now stands out', () => {
  const source = (updated: string | null): Source => ({ name: 'podmetrics', state: 'absent', updated, objects: null });
  assert.equal(severityOf(source(null)), 'ok');
  assert.equal(severityOf(source(read)), 'warning');
});

test('what alone cannot be read is named', () => {
  assert.deepEqual(said(['nodes', 'podmetrics']), [[
    'objects', 'Some objects cannot be read (Nodes, Usage of pods).',
    'The page shows what was read until 11:58:00. nodes refused', 'start it',
  ]]);
});

test('usage alone may be lost', () => {
  assert.deepEqual(said(['podmetrics']).map((b) => b.slice(0, 2)), [['metrics', 'No new usage (Usage of pods).']]);
});

test('a page without history needs no banner', () => {
  assert.deepEqual(said(['history']), []);
  assert.deepEqual(said(['podmetrics', 'history']).map((b) => b[1]), ['No new usage (Usage of pods).']);
});

test('screen readers are told of a loss, and of its end', () => {
  assert.equal(announcement(bannersOf(answer(all))), 'The API server does not answer');
  assert.equal(announcement(bannersOf(answer(['nodes']))), 'Some objects cannot be read');
  assert.equal(announcement([]), 'All sources answer again');
});
