import { useEffect } from "react";
import { type CombinedError, useQuery } from "urql";

import { Budgets } from "./Budgets";
import type { Connection } from "./connection";
import { OverviewDocument, SessionDocument } from "./gql/graphql";
import { LiveSpend } from "./LiveSpend";
import { liveBudgets, scopesToWatch, useLiveSpend } from "./live";
import { LivenessBadge } from "./LivenessBadge";
import { Requests } from "./Requests";

interface Props {
  connection: Connection;
  onLeave: () => void;
}

/** Finds the organization of the token, then shows it. */
export function Dashboard({ connection, onLeave }: Props) {
  const [{ data, error }, retry] = useQuery({ query: SessionDocument });
  const organizationId = data?.viewer.memberships[0]?.organizationId;
  if (error !== undefined) {
    return <Trouble error={error} onRetry={retry} onLeave={onLeave} />;
  }
  if (data === undefined) {
    return <p className="notice">Signing in…</p>;
  }
  if (organizationId === undefined) {
    return (
      <div className="notice">
        <p>This token belongs to no organization: use one of a member.</p>
        <button onClick={onLeave}>Sign out</button>
      </div>
    );
  }
  const who = data.viewer.user.name ?? data.viewer.user.email;
  return <Organization {...{ connection, onLeave, organizationId, who }} />;
}

function Organization(props: Props & { organizationId: string; who: string }) {
  const { connection, onLeave, organizationId, who } = props;
  const [{ data, error }, refresh] = useQuery({
    query: OverviewDocument,
    variables: { organizationId },
  });
  const organization = data?.node?.__typename === "Organization" ? data.node : null;
  const feed = useLiveSpend(organizationId, organization && scopesToWatch(organization));
  useEffect(() => {
    document.title = organization ? `${organization.name} · Spend` : "Spend";
  }, [organization]);
  if (error !== undefined && organization === null) {
    return <Trouble error={error} onRetry={refresh} onLeave={onLeave} />;
  }
  if (organization === null) {
    return <p className="notice">Loading…</p>;
  }
  const { currency } = organization;
  return (
    <>
      <header className="top">
        <div>
          <h1>{organization.name}</h1>
          <p className="quiet">
            {counted(organization.teams.nodes.length, "team")} ·{" "}
            {counted(organization.budgets.nodes.length, "budget")} · {organization.timezone}
          </p>
        </div>
        <div className="who">
          <LivenessBadge connection={connection} at={feed.latest?.at} />
          <span className="quiet">{who}</span>
          <button className="plain" onClick={onLeave}>
            Sign out
          </button>
        </div>
      </header>
      <main className="dashboard">
        <LiveSpend {...{ feed, currency, connection }} />
        <Budgets
          budgets={liveBudgets(organization.budgets.nodes, feed.latest)}
          teams={organization.teams.nodes}
          currency={currency}
          onChanged={refresh}
        />
        <Requests {...{ organizationId, currency }} />
      </main>
    </>
  );
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

interface TroubleProps {
  error: CombinedError;
  onRetry: () => void;
  onLeave: () => void;
}

function Trouble({ error, onRetry, onLeave }: TroubleProps) {
  const isUnknown = error.graphQLErrors.some((each) => each.extensions["code"] === "UNAUTHENTICATED");
  const said = error.networkError
    ? "The API cannot be reached. Is the address right, and is this page's origin one of COMPTROLLER_CORS_ORIGINS?"
    : error.graphQLErrors.map((each) => each.message).join(" ");
  return (
    <div className="notice" role="alert">
      <p>{isUnknown ? "The server does not know this token." : said}</p>
      <button onClick={onRetry}>Try again</button>{" "}
      <button className="plain" onClick={onLeave}>
        Sign out
      </button>
    </div>
  );
}
