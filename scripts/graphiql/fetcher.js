// Sends operations: queries and mutations over HTTP, subscriptions over graphql-transport-ws.
import { getOperationAST } from "graphql";
import { createClient } from "graphql-ws";

const ENDPOINT = "/graphql";
const TOKEN_SLOT = "comptroller:graphiql:token";
const UNFILLED = "…";

/** Makes GraphiQL's fetcher; `tokens` is a Storage that dies with the browser tab. */
export function createFetcher(tokens) {
  return (parameters, { documentAST, headers = {} } = {}) => {
    const authorization = authorizationOf(headers, tokens);
    const operation = documentAST && getOperationAST(documentAST, parameters.operationName);
    return operation?.operation === "subscription"
      ? subscribe(parameters, authorization)
      : post(parameters, { ...headers, ...named("Authorization", authorization) });
  };
}

// A token that was entered in one tab serves the others, until they have one of their own.
function authorizationOf(headers, tokens) {
  const name = Object.keys(headers).find((each) => each.toLowerCase() === "authorization");
  const entered = name === undefined ? "" : String(headers[name]);
  delete headers[name];
  if (entered && !entered.includes(UNFILLED)) {
    tokens.setItem(TOKEN_SLOT, entered);
    return entered;
  }
  return tokens.getItem(TOKEN_SLOT) ?? "";
}

async function post(parameters, headers) {
  const response = await fetch(ENDPOINT, {
    method: "POST",
    headers: {
      accept: "application/graphql-response+json, application/json",
      ...headers,
      "content-type": "application/json",
    },
    body: JSON.stringify(parameters),
  });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { errors: [{ message: `HTTP ${response.status}: ${text.slice(0, 500)}` }] };
  }
}

// A socket of its own for each subscription: closing it is what ends it. An observable and no
// asynchronous generator, which could only be stopped at its next event.
function subscribe(parameters, authorization) {
  const url = new URL(ENDPOINT, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const client = createClient({ url: url.href, connectionParams: { authorization }, retryAttempts: 3 });
  return {
    subscribe({ next, error, complete }) {
      client.subscribe(parameters, { next, error: (failure) => error(new Error(told(failure))), complete });
      return { unsubscribe: () => client.dispose() };
    },
  };
}

function told(failure) {
  if (failure?.code) {
    return `The connection was closed: ${failure.code} ${failure.reason ?? ""}`.trim();
  }
  return Array.isArray(failure) ? failure.map((each) => each.message).join("; ") : String(failure);
}

function named(name, value) {
  return value ? { [name]: value } : {};
}
