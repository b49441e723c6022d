import { type Connection, type Liveness, useLiveness } from "./connection";

const WORDS: Record<Liveness, string> = {
  connecting: "Connecting…",
  live: "Live",
  stale: "Stale, reconnecting…",
  refused: "Token refused",
};

/** Says whether the figures move by themselves, and of when they are. */
export function LivenessBadge({ connection, at }: { connection: Connection; at: string | undefined }) {
  const liveness = useLiveness(connection);
  const of = at === undefined ? "" : ` · last change ${new Date(at).toLocaleTimeString()}`;
  return (
    <span className={`badge ${liveness}`} role="status">
      {WORDS[liveness]}
      <span className="quiet">{of}</span>
    </span>
  );
}
