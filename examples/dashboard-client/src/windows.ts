import type { BudgetPartsFragment } from "./gql/graphql";

/** Says over which time a budget counts, as in "100.00 a month". */
export function during({ period, window }: Pick<BudgetPartsFragment, "period" | "window">): string {
  if (period !== null) {
    return `a ${period.toLowerCase()}`;
  }
  return window.days === null ? "in all" : `every ${window.days} days`;
}
