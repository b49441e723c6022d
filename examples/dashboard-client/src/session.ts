// Where the API is and who asks. Kept for this browser tab only: a token is a password.
const SLOT = "comptroller:session";

export interface Session {
  endpoint: string;
  token: string;
}

/** Reads the session of this tab; null when nobody is signed in. */
export function loadSession(): Session | null {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(SLOT) ?? "null");
    return isSession(kept) ? kept : null;
  } catch {
    return null;
  }
}

/** Keeps a session for this tab; null forgets it. */
export function keepSession(session: Session | null): void {
  if (session === null) {
    sessionStorage.removeItem(SLOT);
  } else {
    sessionStorage.setItem(SLOT, JSON.stringify(session));
  }
}

/** Finishes what was entered as the server's address; null when it is no address. */
export function endpointOf(text: string): string | null {
  try {
    const url = new URL(text.trim());
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      return null;
    }
    url.pathname = url.pathname === "/" ? "/graphql" : url.pathname;
    return url.href;
  } catch {
    return null;
  }
}

function isSession(value: unknown): value is Session {
  return (
    typeof value === "object" &&
    value !== null &&
    "endpoint" in value &&
    typeof value.endpoint === "string" &&
    "token" in value &&
    typeof value.token === "string"
  );
}
