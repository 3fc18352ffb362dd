// Builds the page into a directory: `node build.mjs DIRECTORY`. `node build.mjs --test` runs the unit tests instead.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

process.chdir(import.meta.dirname);

/** Builds index.html, app.js, app.css and licences.txt into the directory to. */
async function page(to) {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  const result = await build({
    entryPoints: [{ in: 'src/main.tsx', out: 'app' }, { in: 'src/app.css', out: 'app' }],
    outdir: to,
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['es2022', 'chrome123', 'firefox124', 'safari17.5'],
    charset: 'utf8',
    legalComments: 'none', // licences.txt has them
    metafile: true,
    logLevel: 'warning',
  });
  for (const file of ['index.html', 'icon.svg']) cpSync(join('src', file), join(to, file));
  writeFileSync(join(to, 'licences.txt'), licences(Object.keys(result.metafile.inputs)));
}

/** Returns the licences of the packages that the bundled files are from. */
function licences(inputs) {
  const packages = new Set(inputs.map((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]).filter(Boolean));
  return [...packages].sort().map((name) => {
    const root = join('node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const file = readdirSync(root).find((f) => /^licen[cs]e/i.test(f));
    if (!file) throw new Error(`${name} has no licence file: do not ship it`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(root, file), 'utf8').trim()}\n`;
  }).join('\n');
}

/** Runs the tests in test/ and returns the exit code. */
async function test() {
  const to = mkdtempSync('node_modules/.test-');
  try {
    const names = readdirSync('test').filter((f) => f.endsWith('.test.ts'));
    await build({
      entryPoints: names.map((f) => join('test', f)), outdir: to, outExtension: { '.js': '.mjs' },
      bundle: true, format: 'esm', platform: 'node', logLevel: 'warning',
    });
    const files = readdirSync(to).map((f) => join(to, f));
    return spawnSync(process.execPath, ['--test', ...files], { stdio: 'inherit' }).status ?? 1;
  } finally {
    rmSync(to, { recursive: true, force: true });
  }
}

const [argument] = process.argv.slice(2);
if (!argument) {
  console.error('usage: node build.mjs DIRECTORY | --test');
  process.exit(2);
}
if (argument === '--test') process.exitCode = await test();
else await page(argument);
