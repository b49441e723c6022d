import { type FormEvent, useEffect, useRef, useState } from "react";
import { useClient } from "urql";

import {
  type BudgetPartsFragment,
  ChangeBudgetDocument,
  type ChangeBudgetMutation,
  CurrentBudgetDocument,
  type Enforcement,
} from "./gql/graphql";
import { during } from "./windows";
import { parseMoney, showMoney } from "./money";

type UserError = ChangeBudgetMutation["budgetUpsert"]["errors"][number];

interface Props {
  budget: BudgetPartsFragment;
  currency: string;
  onChanged: () => void;
  onClose: () => void;
}

/** Changes a budget; what the API refuses is shown beside the field it is about. */
export function BudgetForm({ budget, currency, onChanged, onClose }: Props) {
  const client = useClient();
  const dialog = useRef<HTMLDialogElement>(null);
  // The version that was on the screen: if it is no longer the budget's, somebody was faster.
  const [seen, setSeen] = useState(budget);
  const [errors, setErrors] = useState<readonly UserError[]>([]);
  const [fault, setFault] = useState("");
  const [isSending, setIsSending] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);

  const send = async (limit: string, enforcement: Enforcement) => {
    const input = {
      budgetId: seen.id,
      limit,
      enforcement,
      expectedVersion: seen.version,
    };
    setIsSending(true);
    const { data, error } = await client.mutation(ChangeBudgetDocument, { input });
    setIsSending(false);
    setFault(error?.message ?? "");
    setErrors(data?.budgetUpsert.errors ?? []);
    if (data?.budgetUpsert.budget) {
      onChanged();
      onClose();
    }
  };
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const limit = String(form.get("limit")).trim();
    const nanos = parseMoney(limit);
    if (nanos === null) {
      setErrors([{ code: "INVALID", message: "Enter an amount such as 250.00.", field: ["limit"] }]);
      return;
    }
    void send(limit, form.get("isSoft") === "on" ? "SOFT" : "HARD");
  };
  const readAgain = async () => {
    const { data, error } = await client.query(CurrentBudgetDocument, { id: seen.id });
    setFault(error?.message ?? "");
    if (data?.node?.__typename === "Budget") {
      setSeen(data.node);
      setErrors([]);
      onChanged();
    }
  };

  const isStale = errors.some((each) => each.code === "STALE_VERSION");
  const ofLimit = errors.filter((each) => each.field?.at(-1) === "limit");
  const others = errors.filter((each) => !ofLimit.includes(each) && each.code !== "STALE_VERSION");
  return (
    <dialog ref={dialog} className="card" aria-labelledby="budget-form" onClose={onClose}>
      <form key={seen.version} onSubmit={submit} noValidate>
        <h2 id="budget-form">Budget of {seen.scope.label}</h2>
        <p className="quiet">
          Now {showMoney(seen.limit, currency)} {during(seen)}. What is spent stays spent.
        </p>
        <label>
          Limit in {currency}
          <input
            name="limit"
            inputMode="decimal"
            defaultValue={seen.limit}
            aria-invalid={ofLimit.length > 0}
            aria-describedby="limit-problem"
            autoFocus
          />
        </label>
        <p id="limit-problem" className="problem" role="alert">
          {ofLimit.map((each) => each.message).join(" ")}
        </p>
        <label className="check">
          <input name="isSoft" type="checkbox" defaultChecked={seen.enforcement === "SOFT"} />
          Soft: count, but refuse nothing
        </label>
        <div className="problem" role="alert" id="budget-problem">
          {fault}
          {others.map((each) => (
            <p key={each.message}>
              {each.message} <code>{each.code}</code>
            </p>
          ))}
          {isStale && (
            <p>
              Somebody changed this budget while you were looking at it. <code>STALE_VERSION</code>{" "}
              <button type="button" onClick={() => void readAgain()}>
                Show it as it is now
              </button>
            </p>
          )}
        </div>
        <div className="actions">
          <button type="button" className="plain" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" disabled={isSending}>
            {isSending ? "Saving…" : "Save"}
          </button>
        </div>
      </form>
    </dialog>
  );
}
