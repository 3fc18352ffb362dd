import type { ComponentChildren, VNode } from 'preact';

/** Returns the text of what a component without hooks draws. */
export function textOf(of: ComponentChildren): string {
  if (Array.isArray(of)) return of.map(textOf).join('');
  if (of == null || typeof of === 'boolean') return '';
  if (typeof of !== 'object') return `${of}`;
  const { type, props } = of as VNode<{ children?: ComponentChildren }>;
  return textOf(typeof type === 'function' ? (type as (p: object) => ComponentChildren)(props) : props.children);
}
