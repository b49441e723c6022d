// Money comes and goes as decimal strings with up to nine decimals. It is added and compared as
// whole nano units in a BigInt; a JavaScript number would lose nano units above nine million.

const DECIMALS = 9;
const PATTERN = /^(-?)(\d{1,19})(?:\.(\d{1,9}))?$/;

/** Reads an amount into nano units; null when it is none. */
export function parseMoney(text: string): bigint | null {
  const match = PATTERN.exec(text.trim());
  if (match === null) {
    return null;
  }
  const [, sign = "", whole = "", fraction = ""] = match;
  const nanos = BigInt(whole + fraction.padEnd(DECIMALS, "0"));
  return sign === "-" ? -nanos : nanos;
}

/** Reads an amount that the server wrote. */
export function nanosOf(money: string): bigint {
  const nanos = parseMoney(money);
  if (nanos === null) {
    throw new Error(`${money} is no amount`);
  }
  return nanos;
}

/** Writes an amount for people: groups of three, two decimals or as many as it has. */
export function showMoney(money: string, currency: string): string {
  const nanos = nanosOf(money);
  const digits = (nanos < 0n ? -nanos : nanos).toString().padStart(DECIMALS + 1, "0");
  const whole = digits.slice(0, -DECIMALS).replace(/\B(?=(\d{3})+$)/g, ",");
  const fraction = digits.slice(-DECIMALS).replace(/0+$/, "").padEnd(2, "0");
  return `${nanos < 0n ? "−" : ""}${whole}.${fraction} ${currency}`;
}

/** Tells which part of a whole an amount is, in percent from 0 to 100, for drawing only. */
export function percentOf(part: bigint, whole: bigint): number {
  if (whole <= 0n) {
    return part > 0n ? 100 : 0;
  }
  const perMyriad = (part * 10_000n) / whole;
  return Math.min(100, Math.max(0, Number(perMyriad) / 100));
}
