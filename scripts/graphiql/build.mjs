// Builds controlplane/api/graphiql/assets from the pinned packages:
//
//     cd scripts/graphiql && npm ci --ignore-scripts && npm run build
//
// Another folder can be named as argument. The same packages give the same bytes. `manifest.json` records what the page asks for and the
// SHA-256 of every file; `LICENSES.txt` the terms of everything that went in.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import * as esbuild from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const TARGET = resolve(process.argv[2] ?? join(HERE, "../../controlplane/api/graphiql/assets"));
const MONACO = resolve(HERE, "monaco.js");

// Fonts are three fifths of the style sheet; the system has fonts.
const withoutFonts = (css) =>
  css.replace(/@font-face\s*\{[^}]*font\/woff2?[^}]*\}/g, "").replace(/\/\*[^*]*sourceMapping[^*]*\*\//g, "");

// GraphiQL formats variables with a whole JavaScript printer; jsonc-parser, which it already has, can.
const formatJsonc = `async function formatJSONC(content) {
  return applyEdits(content, format(content, undefined, { tabSize: 2, insertSpaces: true }));
}
`;

function withLighterJson(source) {
  const changed = source
    .replace(/async function formatJSONC[\s\S]*?\n}\n/, formatJsonc)
    .replace("import { parse,", "import { applyEdits, format, parse,");
  if (!changed.includes("applyEdits, format,") || changed.includes("parser-babel")) {
    throw new Error("jsonc.js of @graphiql/react is not what it was: look at it again");
  }
  return changed;
}

// Some packages leave the licence of their repository out of their archives.
const LICENCE_ELSEWHERE = [
  [/graphiql/, "@graphiql/react"],
  [/\/react-compiler-runtime$/, "react"],
  [/\/react-remove-scroll-bar$/, "react-remove-scroll"],
];

const lighter = {
  name: "lighter",
  setup(build) {
    build.onResolve({ filter: /^monaco-editor$/ }, () => ({ path: MONACO }));
    build.onResolve({ filter: /monaco-graphql\/esm\/monaco-editor(\.js)?$/ }, () => ({ path: MONACO }));
    build.onResolve({ filter: /^\.\/monaco-editor(\.js)?$/ }, ({ resolveDir }) =>
      resolveDir.includes("monaco-graphql") ? { path: MONACO } : undefined,
    );
    build.onResolve({ filter: /^prettier\/parser-graphql$/ }, ({ kind, resolveDir }) =>
      build.resolve("prettier/plugins/graphql", { kind, resolveDir }),
    );
    build.onLoad({ filter: /@graphiql\/react\/dist\/utility\/jsonc\.js$/ }, ({ path }) => ({
      contents: withLighterJson(readFileSync(path, "utf8")),
    }));
    // GraphiQL's style sheet contains Monaco's.
    build.onLoad({ filter: /monaco-editor\/.*\.css$/ }, () => ({ contents: "", loader: "empty" }));
    build.onLoad({ filter: /graphiql\/dist\/style\.css$/ }, ({ path }) => ({
      contents: withoutFonts(readFileSync(path, "utf8")),
      loader: "css",
    }));
  },
};

const { metafile } = await esbuild.build({
  absWorkingDir: HERE,
  entryPoints: {
    page: "page.js",
    "worker-editor": "monaco-editor/esm/vs/editor/editor.worker.js",
    "worker-graphql": "monaco-graphql/esm/graphql.worker.js",
    "worker-json": "monaco-editor/esm/vs/language/json/json.worker.js",
  },
  outdir: "build",
  bundle: true,
  minify: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  entryNames: "[name]-[hash]",
  chunkNames: "chunk-[hash]",
  define: { "process.env.NODE_ENV": '"production"' },
  plugins: [lighter],
  metafile: true,
  write: false,
}).then((result) => {
  rmSync(TARGET, { recursive: true, force: true });
  mkdirSync(TARGET, { recursive: true });
  for (const file of result.outputFiles) {
    writeFileSync(join(TARGET, basename(file.path)), file.contents);
  }
  return result;
});

writeFileSync(join(TARGET, "LICENSES.txt"), licences(metafile));
const names = readdirSync(TARGET).sort();
const entry = (start, end) => names.find((name) => name.startsWith(start) && name.endsWith(end));
const manifest = {
  page: entry("page-", ".js"),
  style: entry("page-", ".css"),
  workers: Object.fromEntries(
    ["editor", "graphql", "json"].map((each) => [each, entry(`worker-${each}-`, ".js")]),
  ),
  files: Object.fromEntries(
    names.map((name) => [name, createHash("sha256").update(readFileSync(join(TARGET, name))).digest("hex")]),
  ),
};
writeFileSync(join(TARGET, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
const bytes = names.reduce((sum, name) => sum + readFileSync(join(TARGET, name)).length, 0);
console.log(`${names.length} files, ${bytes} bytes`);

function licences({ inputs }) {
  const folders = new Set(
    Object.keys(inputs)
      .map((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
      .filter(Boolean),
  );
  const texts = [...folders].map((folder) => [packageOf(folder), terms(folder)]).sort();
  const line = "=".repeat(79);
  return texts.map(([name, text]) => `${line}\n${name}\n${line}\n\n${text.trim()}\n`).join("\n");
}

function packageOf(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(HERE, folder, "package.json")));
  return `${name} ${version} (${license})`;
}

function terms(folder) {
  // Of prettier only the GraphQL printer is used; its notices name what its other languages bundle.
  const wanted = folder.endsWith("/prettier") ? /^license/i : /^(licen[cs]e|notice|third)/i;
  const files = readdirSync(join(HERE, folder)).filter((name) => wanted.test(name));
  const own = files.map((name) => readFileSync(join(HERE, folder, name), "utf8"));
  if (own.length > 0) {
    return own.join("\n\n");
  }
  const sibling = LICENCE_ELSEWHERE.find(([pattern]) => pattern.test(folder))?.[1];
  if (sibling === undefined) {
    throw new Error(`${folder} contains no licence text: find it and name it here`);
  }
  return readFileSync(join(HERE, "node_modules", sibling, "LICENSE"), "utf8");
}
