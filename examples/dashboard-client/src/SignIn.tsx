import { type FormEvent, useState } from "react";

import { endpointOf, type Session } from "./session";

const DEFAULT_ENDPOINT = import.meta.env["VITE_ENDPOINT"] ?? "http://127.0.0.1:8080/graphql";

/** Asks where the API is and for a token. */
export function SignIn({ onEnter }: { onEnter: (session: Session) => void }) {
  const [problem, setProblem] = useState("");
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const endpoint = endpointOf(String(form.get("endpoint")));
    const token = String(form.get("token")).trim();
    if (endpoint === null) {
      setProblem("The address must begin with http:// or https://.");
    } else if (!/^[\x21-\x7e]+$/.test(token)) {
      setProblem("Enter an access token; it begins with cpat_.");
    } else {
      onEnter({ endpoint, token });
    }
  };
  return (
    <main className="sign-in">
      <form className="card" onSubmit={submit} noValidate>
        <h1>Spend</h1>
        <p className="quiet">Live spend and budgets of your organization.</p>
        <label>
          Address of the API
          <input name="endpoint" type="url" defaultValue={DEFAULT_ENDPOINT} autoComplete="url" />
        </label>
        <label>
          Access token
          <input name="token" type="password" placeholder="cpat_…" autoComplete="off" autoFocus />
        </label>
        <p className="problem" role="alert">
          {problem}
        </p>
        <button type="submit">Sign in</button>
        <p className="quiet small">The token stays in this browser tab and is forgotten with it.</p>
      </form>
    </main>
  );
}
