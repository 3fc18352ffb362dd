import assert from 'node:assert/strict';
import { test } from 'node:test';
import { detailURL, format, key, link, parse, pathIn, route, tableURL } from '../src/route';

test('a route survives its URL', () => {
  for (const r of [
    route('nodes'),
    route('pods', { detail: ['kube-system', 'dns-1'], filter: 'a b&c=?#/%', namespace: 'kube-system' }),
    route('pods', { sort: 'memory', desc: false, node: 'n 1' }),
    route('workloads', { detail: ['x', 'Deployment', 'web'], desc: true }),
    route('pods', { namespace: 'x', workload: 'Deployment/web' }),
    route('findings'),
  ]) assert.deepEqual(parse(format(r)), r);
});

test('whatever is not known leads to the nodes', () => {
  for (const hash of ['', '#', '#/', '#/secrets/a', '#x?y']) assert.deepEqual(parse(hash), route('nodes'), hash);
  assert.deepEqual(parse('#/pods/a/%zz').detail, ['a', '%zz']);
});

test('the program is asked for the same', () => {
  const r = route('pods', { filter: 'a b', sort: 'name', desc: false });
  assert.equal(tableURL(r, 20, 60), '/api/pods?sort=name&filter=a+b&desc=0&offset=20&count=60');
  assert.equal(detailURL('workloads', ['x', 'Deployment', 'a/b']), '/api/workloads/x/Deployment/a%2Fb');
});

test('objects lead to their details', () => {
  assert.equal(link({ kind: 'Node', name: 'n1' }), '#/nodes/n1');
  assert.equal(link({ kind: 'Pod', namespace: 'a', name: 'b' }), '#/pods/a/b');
  assert.equal(link({ kind: 'HorizontalPodAutoscaler', namespace: 'a', name: 'b' }), '#/hpas/a/b');
  assert.equal(link({ kind: 'StatefulSet', namespace: 'a', name: 'b' }), '#/workloads/a/StatefulSet/b');
  assert.equal(key({ kind: 'Node', name: 'n1' }), 'Node//n1');
});

test('a pod without a controller has details in two tabs', () => {
  const bare = { kind: 'Pod', namespace: 'a', name: 'b' };
  assert.equal(link(bare), '#/pods/a/b');
  assert.equal(link(bare, 'workloads'), '#/workloads/a/Pod/b');
  assert.deepEqual(pathIn('pods', bare), ['a', 'b']);
  assert.deepEqual(pathIn('workloads', bare), ['a', 'Pod', 'b']);
  // Nor does the kind of a workload lead elsewhere if it is that of a custom resource.
  assert.deepEqual(pathIn('workloads', { kind: 'Node', namespace: 'a', name: 'b' }), ['a', 'Node', 'b']);
});
