// Requests on record: pages read with a cursor, and before them those that ended since.
import { useCallback, useEffect, useState } from "react";
import { useClient, useSubscription } from "urql";

import { type RequestPartsFragment, RequestsDocument, RequestTailDocument } from "./gql/graphql";

// Rows kept while the page stays open for days.
const ROWS_MAX = 1_000;

export interface RequestRows {
  rows: readonly RequestPartsFragment[];
  /** Reads the next page; null when there is none. */
  loadMore: (() => void) | null;
  isLoading: boolean;
  problem: string;
  /** How many the live feed left out; they are in the pages. */
  dropped: number;
}

/** Reads requests, the newest first, and adds new ones as they end. */
export function useRequests(organizationId: string): RequestRows {
  const client = useClient();
  const [rows, setRows] = useState<readonly RequestPartsFragment[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [isLoading, setIsLoading] = useState(true);
  const [problem, setProblem] = useState("");
  const [dropped, setDropped] = useState(0);

  const load = useCallback(
    async (after: string | null) => {
      setIsLoading(true);
      const { data, error } = await client.query(RequestsDocument, { organizationId, after });
      setIsLoading(false);
      setProblem(error?.message ?? "");
      if (data?.node?.__typename === "Organization") {
        const { nodes, pageInfo } = data.node.requests;
        setRows((before) => merged(before, nodes));
        setNext(pageInfo.hasNextPage ? pageInfo.endCursor : null);
      }
    },
    [client, organizationId],
  );
  useEffect(() => void load(null), [load]);

  const [{ data }] = useSubscription({ query: RequestTailDocument, variables: { organizationId } });
  const batch = data?.requestLog;
  useEffect(() => {
    if (batch !== undefined) {
      setRows((before) => merged(before, batch.requests));
      setDropped((before) => before + batch.dropped);
    }
  }, [batch]);

  const loadMore = next === null || rows.length >= ROWS_MAX ? null : () => void load(next);
  return { rows, loadMore, isLoading, problem, dropped };
}

// The feed and a page may bring the same request.
function merged(
  before: readonly RequestPartsFragment[],
  more: readonly RequestPartsFragment[],
): RequestPartsFragment[] {
  const byId = new Map([...before, ...more].map((row) => [row.id, row]));
  return [...byId.values()].sort((a, b) => compare(b, a)).slice(0, ROWS_MAX);
}

function compare(a: RequestPartsFragment, b: RequestPartsFragment): number {
  const byTime = a.at < b.at ? -1 : Number(a.at > b.at);
  return byTime === 0 ? (a.id < b.id ? -1 : Number(a.id > b.id)) : byTime;
}
