import { useEffect, useRef, useState } from 'preact/hooks';
import type { Problem } from './answers';

/** How often an answer is asked for, and how long the pause gets while requests fail, in milliseconds. */
const interval = 1000;
const longest = 5000;
/** How long an answer may take. That of a cluster with 150,000 pods takes about a second on a busy machine. */
const patience = 10_000;

/** Why there is no answer. With status 0 the program itself does not answer. */
export interface Failure extends Problem {
  status: number;
}

const silent: Failure = { status: 0, error: 'metrics-server ui does not answer', remedy: '' };

/**
 * Sends a request, which fails if the answer is not complete in time. A program that is stopped, or behind a network
 * that drops all packets, never answers, and its connection never ends.
 */
function request(url: string, options: RequestInit, abort?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(patience);
  return fetch(url, { ...options, signal: abort ? AbortSignal.any([abort, timeout]) : timeout });
}

export interface Answer<T> {
  /** The URL that data is from. */
  url: string | null;
  data: T | null;
  /** When the last answer came, also if it said that nothing has changed, as Unix milliseconds. */
  at: number;
  failure: Failure | null;
}

/** Makes every poll ask at once: the page is seen again, or the program answers again. */
const wake = new EventTarget();
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) wakeAll();
});

export function wakeAll(): void {
  wake.dispatchEvent(new Event('wake'));
}

/**
 * Asks for a URL once a second, one request at a time, while the page is visible, and pauses longer after a failure.
 * A null URL asks for nothing. The data of the URL before stays until there is an answer.
 */
export function usePoll<T>(url: string | null, paused = false): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T>>({ url: null, data: null, at: 0, failure: null });
  const answered = useRef<string | null>(null);
  useEffect(() => {
    if (url == null || (paused && answered.current === url)) return undefined;
    const abort = new AbortController();
    let etag = '';
    let timer = 0;
    let pause = interval;
    let busy = false;
    const ask = async () => {
      clearTimeout(timer);
      if (paused && answered.current === url) return; // woken, but the answer must not change
      if (busy || document.hidden) return; // visibilitychange asks again
      busy = true;
      try {
        const response = await request(url, { headers: etag ? { 'If-None-Match': etag } : {} }, abort.signal);
        if (response.status === 304) {
          setAnswer((a) => ({ ...a, at: Date.now(), failure: null }));
        } else if (response.ok) {
          const data = (await response.json()) as T;
          etag = response.headers.get('ETag') ?? '';
          answered.current = url;
          setAnswer({ url, data, at: Date.now(), failure: null });
        } else {
          throw await failureOf(response);
        }
        pause = interval;
        if (paused) return;
      } catch (e) {
        if (abort.signal.aborted) return;
        const failure = e instanceof Error ? silent : (e as Failure);
        const keep = (a: Answer<T>) => a.url === url || failure === silent;
        setAnswer((a) => (keep(a) ? { ...a, failure } : { ...a, url, data: null, failure }));
        etag = '';
        pause = Math.min(longest, pause * 2);
      } finally {
        busy = false;
      }
      timer = window.setTimeout(ask, pause);
    };
    const now = () => void ask();
    wake.addEventListener('wake', now);
    now();
    return () => {
      abort.abort();
      clearTimeout(timer);
      wake.removeEventListener('wake', now);
    };
  }, [url, paused]);
  return answer;
}

/** Reads the error of an answer. One that is no JSON is not from this program. */
async function failureOf(response: Response): Promise<Failure> {
  const { status } = response;
  try {
    const problem = (await response.json()) as Problem;
    return { status, error: problem.error, remedy: problem.remedy ?? '' };
  } catch {
    return { status, error: `the answer is ${status} ${response.statusText}`.trim(), remedy: '' };
  }
}

/** Sends a POST request, which needs the header because other sites cannot set it. */
export async function post(url: string): Promise<Failure | null> {
  try {
    const response = await request(url, { method: 'POST', headers: { 'X-Requested-With': 'metrics-server-ui' } });
    return response.ok ? null : await failureOf(response);
  } catch {
    return silent;
  }
}
