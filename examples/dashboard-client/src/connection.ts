// Whether the live feed can be believed. Snapshots come only when something changes, so silence
// alone says nothing: the socket is pinged, and it is stale when no answer comes.
import { useSyncExternalStore } from "react";

export type Liveness = "connecting" | "live" | "stale" | "refused";

const STALE_AFTER_MS = 12_000;
const LOOK_EVERY_MS = 1_000;

export class Connection {
  #liveness: Liveness = "connecting";
  #heardAt = 0;
  #listeners = new Set<() => void>();
  #timer: ReturnType<typeof setInterval>;

  constructor() {
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  get liveness(): Liveness {
    return this.#liveness;
  }

  /** Something came from the server. */
  heard(): void {
    this.#heardAt = Date.now();
    this.#become("live");
  }

  /** The socket closed; it is opened again unless the server refused the token. */
  lost(isRefused: boolean): void {
    this.#become(isRefused ? "refused" : "stale");
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  close(): void {
    clearInterval(this.#timer);
    this.#listeners.clear();
  }

  #look(): void {
    if (this.#liveness === "live" && Date.now() - this.#heardAt > STALE_AFTER_MS) {
      this.#become("stale");
    }
  }

  #become(liveness: Liveness): void {
    if (this.#liveness !== liveness) {
      this.#liveness = liveness;
      this.#listeners.forEach((listener) => listener());
    }
  }
}

/** Follows whether the live feed can be believed. */
export function useLiveness(connection: Connection): Liveness {
  return useSyncExternalStore(connection.subscribe, () => connection.liveness);
}
