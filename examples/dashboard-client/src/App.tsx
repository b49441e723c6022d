import { useEffect, useState } from "react";
import { Provider } from "urql";

import { type Api, makeApi } from "./client";
import { Dashboard } from "./Dashboard";
import { keepSession, loadSession, type Session } from "./session";
import { SignIn } from "./SignIn";

/** The page: a form until somebody is signed in, then the dashboard. */
export function App() {
  const [session, setSession] = useState<Session | null>(loadSession);
  const api = useApi(session);
  const enter = (entered: Session | null) => {
    keepSession(entered);
    setSession(entered);
  };
  if (session === null) {
    return <SignIn onEnter={enter} />;
  }
  if (api === null) {
    return null;
  }
  return (
    <Provider value={api.client}>
      <Dashboard connection={api.connection} onLeave={() => enter(null)} />
    </Provider>
  );
}

// One client for each session, closed with it.
function useApi(session: Session | null): Api | null {
  const [api, setApi] = useState<Api | null>(null);
  useEffect(() => {
    if (session === null) {
      return;
    }
    const made = makeApi(session);
    setApi(made);
    return () => {
      made.close();
      setApi(null);
    };
  }, [session]);
  return api;
}
