import './document';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { post } from '../src/poll';

test('a request that is never answered fails', async ({ mock }) => {
  const timer = new AbortController();
  const timeout = mock.method(AbortSignal, 'timeout', () => timer.signal);
  mock.method(globalThis, 'fetch', (_url: string, { signal }: RequestInit) => new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason));
  }));
  const answer = post('/api/doctor');
  timer.abort(new DOMException('the time is over', 'TimeoutError'));
  assert.equal((await answer)?.status, 0);
  assert.deepEqual(timeout.mock.calls.map((c) => c.arguments), [[10_000]]);
});
