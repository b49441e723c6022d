// The page at /graphiql. What it needs to know stands in data attributes of its root element.
import { buildSchema } from "graphql";
import { GraphiQL } from "graphiql";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

import { createFetcher } from "./fetcher.js";
import "graphiql/style.css";
import "./page.css";

const HEADERS = JSON.stringify({ Authorization: "Bearer cpat_…" }, null, 2);
const root = document.getElementById("graphiql");

globalThis.MonacoEnvironment = {
  getWorker(_id, label) {
    const url = { json: root.dataset.workerJson, graphql: root.dataset.workerGraphql }[label];
    return new Worker(url ?? root.dataset.workerEditor, { type: "module", name: label });
  },
};

// The browser may forbid storage; then nothing outlives a reload.
function sessionOrMemory() {
  try {
    sessionStorage.getItem("");
    return sessionStorage;
  } catch {
    const kept = new Map();
    return {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
      clear: () => kept.clear(),
      get length() {
        return kept.size;
      },
    };
  }
}

async function start() {
  const [schema, operations] = await Promise.all([
    fetch(root.dataset.schema).then((answer) => answer.text()),
    fetch(root.dataset.operations).then((answer) => answer.json()),
  ]);
  const storage = sessionOrMemory();
  const tabs = operations.map(({ query, variables }) => ({ query, variables, headers: HEADERS }));
  const graphiql = createElement(
    GraphiQL,
    {
      schema: buildSchema(schema),
      fetcher: createFetcher(storage),
      storage,
      defaultTabs: tabs,
      defaultHeaders: HEADERS,
      defaultEditorToolsVisibility: "headers",
      shouldPersistHeaders: true,
      showPersistHeadersSettings: false,
    },
    createElement(GraphiQL.Logo, null, "Comptroller"),
  );
  createRoot(root).render(graphiql);
}

start().catch((failure) => {
  root.textContent = `GraphiQL could not start: ${failure.message}`;
});
