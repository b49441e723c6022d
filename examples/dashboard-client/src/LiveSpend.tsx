import { type Connection, useLiveness } from "./connection";
import type { Feed } from "./live";
import { nanosOf, percentOf, showMoney } from "./money";

interface Props {
  feed: Feed;
  currency: string;
  connection: Connection;
}

/** What is spent at this moment, in all and by scope. */
export function LiveSpend({ feed, currency, connection }: Props) {
  const isStale = useLiveness(connection) !== "live";
  const [whole, ...parts] = feed.latest?.scopes ?? [];
  if (feed.problem !== null) {
    return (
      <section className="card wide" aria-labelledby="live">
        <h2 id="live">Live spend</h2>
        <p className="problem" role="alert">
          {feed.problem}
        </p>
      </section>
    );
  }
  return (
    <section className={isStale ? "card wide is-stale" : "card wide"} aria-labelledby="live">
      <h2 id="live">Live spend</h2>
      {whole === undefined ? (
        <p className="quiet">Waiting for the first snapshot…</p>
      ) : (
        <>
          <dl className="figures">
            <Figure name="Last minute" value={showMoney(whole.lastMinute, currency)} id="last-minute" />
            <Figure name="Last hour" value={showMoney(whole.lastHour, currency)} id="last-hour" />
            <Figure name="Requests a minute" value={whole.requestsPerMinute} id="requests-a-minute" />
          </dl>
          <Sparkline history={feed.history} />
          <ul className="parts">
            {parts.map(({ scope, lastMinute, requestsPerMinute }) => (
              <li key={scope.id}>
                <span className="kind">{scope.kind.toLowerCase()}</span>
                <span className="name">{scope.label}</span>
                <span className="amount">{showMoney(lastMinute, currency)}</span>
                <span className="quiet">{requestsPerMinute} a minute</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function Figure({ name, value, id }: { name: string; value: string; id: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd id={id}>{value}</dd>
    </div>
  );
}

// A line of the last snapshots; 100 units wide and 24 high, whatever the screen makes of them.
function Sparkline({ history }: { history: readonly string[] }) {
  const amounts = history.map(nanosOf);
  const most = amounts.reduce((high, each) => (each > high ? each : high), 1n);
  const step = 100 / Math.max(1, amounts.length - 1);
  const points = amounts.map((each, at) => `${at * step},${23 - (percentOf(each, most) * 22) / 100}`);
  return (
    <svg className="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
      {points.length > 1 && (
        <>
          <polygon points={`0,24 ${points.join(" ")} 100,24`} />
          <polyline points={points.join(" ")} />
        </>
      )}
    </svg>
  );
}
