// The urql client: POST for queries and mutations, graphql-transport-ws for subscriptions.
import { Client, fetchExchange, mapExchange, subscriptionExchange } from "urql";
import type { ExecutionResult, Operation } from "@urql/core";
import { createClient, type SubscribePayload } from "graphql-ws";

import { Connection } from "./connection";
import type { Session } from "./session";

// Built with VITE_TRUSTED_DOCUMENTS=true the page sends ids of documents in place of documents, for
// servers that answer trusted documents only. It is a constant, so the other branch is left out.
const SENDS_IDS = import.meta.env["VITE_TRUSTED_DOCUMENTS"] === "true";
const PING_EVERY_MS = 5_000;
const UNAUTHORIZED = 4401;
const FORBIDDEN = 4403;

export interface Api {
  client: Client;
  connection: Connection;
  close: () => void;
}

/** Makes what talks to the API for one session. */
export function makeApi({ endpoint, token }: Session): Api {
  const authorization = `Bearer ${token}`;
  const connection = new Connection();
  // A token that was just taken is closed upon when its role changes too: only one that is not
  // taken to begin with is refused for good.
  let isTaken = false;
  const isFinal = (event: unknown) => isRefusal(event) && !isTaken;
  const socket = createClient({
    url: endpoint.replace(/^http/, "ws"),
    connectionParams: { authorization },
    keepAlive: PING_EVERY_MS,
    retryAttempts: Number.POSITIVE_INFINITY,
    retryWait: (retries) => pause(Math.min(500 * 2 ** retries, 10_000) * (0.5 + Math.random() / 2)),
    // What the socket tells is an Event. Anything else would fail again at once, and for ever.
    shouldRetry: (event) => event instanceof Event && !isFinal(event),
    on: {
      connecting: () => {
        isTaken = false;
      },
      connected: () => {
        isTaken = true;
        connection.heard();
      },
      message: () => connection.heard(),
      closed: (event) => connection.lost(isFinal(event)),
    },
  });
  const client = new Client({
    url: endpoint,
    preferGetMethod: false,
    requestPolicy: "network-only",
    fetchOptions: { headers: { authorization } },
    exchanges: [
      mapExchange({ onOperation: (operation) => (SENDS_IDS ? withId(operation) : operation) }),
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: (body) => ({
          subscribe: (sink) => ({
            unsubscribe: socket.subscribe(payloadOf(body), {
              next: (result) => sink.next(result as ExecutionResult),
              error: (error) => sink.error(error),
              complete: () => sink.complete(),
            }),
          }),
        }),
      }),
    ],
  });
  return {
    client,
    connection,
    close: () => {
      connection.close();
      void socket.dispose();
    },
  };
}

// urql sends `documentId` and no `query` for a document that has an id and no definitions. The
// server knows what the definitions were.
function withId(operation: Operation): Operation {
  const { query } = operation;
  const hash = "__meta__" in query ? (query.__meta__ as { hash?: string }).hash : undefined;
  if (hash === undefined) {
    return operation;
  }
  return { ...operation, query: { ...query, definitions: [], documentId: hash } as typeof query };
}

// graphql-ws sends no subscription without a `query`; the server looks at `documentId` first.
function payloadOf(body: Omit<SubscribePayload, "query"> & { query?: string }): SubscribePayload {
  return { ...body, query: body.query ?? "" };
}

function isRefusal(event: unknown): boolean {
  return event instanceof CloseEvent && (event.code === UNAUTHORIZED || event.code === FORBIDDEN);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
