import { useState } from "react";

import { BudgetForm } from "./BudgetForm";
import type { BudgetPartsFragment } from "./gql/graphql";
import { nanosOf, percentOf, showMoney } from "./money";
import { during } from "./windows";

interface Props {
  budgets: readonly BudgetPartsFragment[];
  teams: readonly { id: string; name: string }[];
  currency: string;
  onChanged: () => void;
}

/** All budgets, those of the organization first, with their live state. */
export function Budgets({ budgets, teams, currency, onChanged }: Props) {
  const [edited, setEdited] = useState<BudgetPartsFragment | null>(null);
  const withBudget = new Set(budgets.map((budget) => budget.scope.id));
  const without = teams.filter((team) => !withBudget.has(team.id));
  const close = () => setEdited(null);
  return (
    <section className="card" aria-labelledby="budgets">
      <h2 id="budgets">Teams and budgets</h2>
      {budgets.length === 0 && <p className="quiet">There are no budgets.</p>}
      <ul className="budgets">
        {budgets.map((budget) => (
          <li key={budget.id}>
            <Heading budget={budget} currency={currency} />
            <Bar budget={budget} currency={currency} />
            <button className="plain" onClick={() => setEdited(budget)}>
              Change<span className="hidden"> the budget of {budget.scope.label}</span>
            </button>
          </li>
        ))}
      </ul>
      {without.length > 0 && (
        <p className="quiet small">Without a budget: {without.map((team) => team.name).join(", ")}.</p>
      )}
      {edited !== null && (
        <BudgetForm key={edited.id} {...{ budget: edited, currency, onChanged }} onClose={close} />
      )}
    </section>
  );
}

interface BudgetProps {
  budget: BudgetPartsFragment;
  currency: string;
}

function Heading({ budget, currency }: BudgetProps) {
  const { scope, limit, enforcement } = budget;
  return (
    <div className="heading">
      <span>
        <span className="kind">{scope.kind.toLowerCase()}</span> <strong>{scope.label}</strong>
      </span>
      <span>
        <span className="limit">{showMoney(limit, currency)}</span>{" "}
        <span className="quiet">
          {during(budget)}
          {enforcement !== "HARD" && `, ${enforcement.toLowerCase()}`}
        </span>
      </span>
    </div>
  );
}

function Bar({ budget, currency }: BudgetProps) {
  const { state } = budget;
  if (state === null) {
    return <p className="quiet small">No live state here.</p>;
  }
  const limit = nanosOf(budget.limit);
  const settled = percentOf(nanosOf(state.settled), limit);
  const held = Math.min(100 - settled, percentOf(nanosOf(state.held), limit));
  const level = settled + held >= 90 ? "high" : settled + held >= 70 ? "raised" : "low";
  const said = `${showMoney(state.settled, currency)} spent, ${showMoney(state.remaining, currency)} left`;
  return (
    <>
      <div
        className={`bar ${level}`}
        role="meter"
        aria-label={`Budget of ${budget.scope.label}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={settled}
        aria-valuetext={said}
      >
        <span className="settled" style={{ width: `${settled}%` }} />
        <span className="held" style={{ width: `${held}%` }} />
      </div>
      <p className="quiet small">
        {said}
        {nanosOf(state.held) > 0n && `, ${showMoney(state.held, currency)} held`}
      </p>
    </>
  );
}
