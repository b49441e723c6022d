// What the live feed says, and how it joins what was read before.
import { useEffect, useMemo, useRef, useState } from "react";
import { useSubscription } from "urql";

import {
  type BudgetPartsFragment,
  LiveSpendDocument,
  type LiveSpendSubscription,
  type OverviewQuery,
  type ScopeInput,
} from "./gql/graphql";

export type Snapshot = LiveSpendSubscription["liveSpend"];
export type OrganizationParts = Extract<NonNullable<OverviewQuery["node"]>, { __typename: "Organization" }>;

export interface Feed {
  latest: Snapshot | null;
  /** The organization's last minute in the latest snapshots, the oldest first. */
  history: readonly string[];
  problem: string | null;
}

// As many as the API follows in one subscription.
const SCOPES_MAX = 20;
const HISTORY_MAX = 120;

/** Names a scope for the API. */
export function scopeInput({ kind, id }: BudgetPartsFragment["scope"]): ScopeInput | null {
  switch (kind) {
    case "ORGANIZATION":
      return { organizationId: id };
    case "TEAM":
      return { teamId: id };
    case "MEMBER":
      return { memberId: id };
    case "KEY":
      return { keyId: id };
    default:
      // Pools and labels have budgets, and no feed of their own.
      return null;
  }
}

/** Lists whom to follow: the organization first, its teams, then whoever else has a budget. */
export function scopesToWatch({ id, teams, budgets }: OrganizationParts): ScopeInput[] {
  const teamIds = teams.nodes.map((team) => team.id);
  const others = budgets.nodes.map((budget) => budget.scope);
  const known = new Set([id, ...teamIds]);
  const wanted: ScopeInput[] = [{ organizationId: id }, ...teamIds.map((teamId) => ({ teamId }))];
  for (const scope of others) {
    const input = scopeInput(scope);
    if (input !== null && !known.has(scope.id)) {
      known.add(scope.id);
      wanted.push(input);
    }
  }
  return wanted.slice(0, SCOPES_MAX);
}

/** Follows spending; nothing is asked until there are scopes. */
export function useLiveSpend(organizationId: string, scopes: ScopeInput[] | null): Feed {
  // The same scopes must be the same object, or each answer would begin a new subscription.
  const text = JSON.stringify(scopes);
  const variables = useMemo(
    () => ({ organizationId, scopes: JSON.parse(text) as ScopeInput[] | null }),
    [organizationId, text],
  );
  const [{ data, error }] = useSubscription({
    query: LiveSpendDocument,
    variables,
    pause: scopes === null,
  });
  const latest = data?.liveSpend ?? null;
  return { latest, history: useHistory(latest), problem: error?.message ?? null };
}

/** Puts the live state of budgets in place of what was read before. */
export function liveBudgets(
  budgets: readonly BudgetPartsFragment[],
  latest: Snapshot | null,
): BudgetPartsFragment[] {
  const live = new Map(latest?.scopes.flatMap((scope) => scope.budgets.map((each) => [each.id, each])));
  return budgets.map((budget) => {
    const found = live.get(budget.id);
    return found !== undefined && found.version >= budget.version ? found : budget;
  });
}

function useHistory(latest: Snapshot | null): readonly string[] {
  const [history, setHistory] = useState<readonly string[]>([]);
  const seen = useRef<string | null>(null);
  useEffect(() => {
    const amount = latest?.scopes[0]?.lastMinute;
    if (latest !== null && amount !== undefined && seen.current !== latest.at) {
      seen.current = latest.at;
      setHistory((before) => [...before, amount].slice(-HISTORY_MAX));
    }
  }, [latest]);
  return history;
}
