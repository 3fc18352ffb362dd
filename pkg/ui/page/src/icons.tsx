import type { Severity } from './answers';

// Each has a shape of its own, so that none depends on its colour.
const paths = {
  ok: 'M3.5 8.5l3 3 6-7',
  unknown: 'M5.6 6a2.4 2.4 0 1 1 3.6 2.1c-.8.5-1.2.9-1.2 1.9M8 12.6v.1',
  warning: 'M8 2.2L14.4 13.6H1.6zM8 6.4v3.4M8 11.7v.1',
  problem: 'M5.2 1.8h5.6l3.4 3.4v5.6l-3.4 3.4H5.2L1.8 10.8V5.2zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4',
  close: 'M4 4l8 8M12 4l-8 8',
  search: 'M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 1 1 0-9M10.4 10.4l3.4 3.4',
  auto: 'M8 2a6 6 0 1 1 0 12 6 6 0 1 1 0-12M8 2v12M10 4v8M12 6v4',
  dark: 'M13.4 9.6A5.8 5.8 0 0 1 6.4 2.6a5.8 5.8 0 1 0 7 7z',
  light: 'M8 5a3 3 0 1 1 0 6 3 3 0 1 1 0-6M8 1.2v1.4M8 13.4v1.4M1.2 8h1.4M13.4 8h1.4' +
    'M3.2 3.2l1 1M11.8 11.8l1 1M3.2 12.8l1-1M11.8 4.2l1-1',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  play: 'M5 3.2v9.6l7.6-4.8z',
  refresh: 'M13 8a5 5 0 1 1-1.5-3.6M13 2.4v2.8h-2.8',
  down: 'M8 3v10M4 9l4 4 4-4',
  up: 'M8 13V3M4 7l4-4 4 4',
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return <svg class={`icon icon-${name}`} viewBox="0 0 16 16" aria-hidden="true"><path d={paths[name]} /></svg>;
}

/** An icon and a text, for which the colour is only a help. */
export function State({ severity, text, title }: { severity: Severity; text: string; title?: string | undefined }) {
  return (
    <span class={`state state-${severity}`} title={title}>
      <Icon name={severity} />
      <span class="state-text">{text}</span>
    </span>
  );
}
