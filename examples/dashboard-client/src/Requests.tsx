import type { RequestPartsFragment } from "./gql/graphql";
import { showMoney } from "./money";
import { useRequests } from "./requests";

/** A table of the last requests. */
export function Requests({ organizationId, currency }: { organizationId: string; currency: string }) {
  const { rows, loadMore, isLoading, problem, dropped } = useRequests(organizationId);
  return (
    <section className="card" aria-labelledby="requests">
      <h2 id="requests">Requests</h2>
      {dropped > 0 && (
        <p className="quiet small">{dropped} came too fast to be shown here; they are on record.</p>
      )}
      <div className="scroll" tabIndex={0} role="region" aria-labelledby="requests">
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">Model</th>
              <th scope="col">Decision</th>
              <th scope="col" className="number">
                Charge
              </th>
              <th scope="col" className="number">
                Tokens
              </th>
              <th scope="col" className="number">
                Took
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <Row key={row.id} row={row} currency={currency} />
            ))}
          </tbody>
        </table>
        {rows.length === 0 && !isLoading && <p className="quiet">No requests yet.</p>}
      </div>
      <p className="problem" role="alert">
        {problem}
      </p>
      {loadMore !== null && (
        <button className="plain" onClick={loadMore} disabled={isLoading}>
          {isLoading ? "Loading…" : "Load more"}
        </button>
      )}
    </section>
  );
}

function Row({ row, currency }: { row: RequestPartsFragment; currency: string }) {
  return (
    <tr title={row.requestId}>
      <td>
        <time dateTime={row.at}>{new Date(row.at).toLocaleTimeString()}</time>
      </td>
      <td>{row.servedModel ?? row.requestedModel ?? "—"}</td>
      <td>
        <span className={`decision ${row.decision}`}>{row.decision}</span>{" "}
        {row.code !== null && <code>{row.code}</code>}
      </td>
      <td className="number">{showMoney(row.charge, currency)}</td>
      <td className="number">
        {row.inputTokens} → {row.outputTokens}
      </td>
      <td className="number">{row.latencyMs} ms</td>
    </tr>
  );
}
