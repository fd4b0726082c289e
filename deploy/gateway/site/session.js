// Keeps the user's id and token in this browser: for this tab, or for longer if the person wishes.

import { read, remove, write } from "./storage.js";

/** @typedef {{id: string, token: string, name: string}} Session */

const KEPT = "waxwing.session";

/** @returns {Session | null} */
export function findSession() {
  return parse(read("sessionStorage", KEPT)) ?? parse(read("localStorage", KEPT));
}

/** Returns a session, or null for anything else that the storage may have. @param {string | null} text */
function parse(text) {
  try {
    const session = JSON.parse(text ?? "null");
    const isWhole = ["id", "token", "name"].every((key) => typeof session[key] === "string");
    return isWhole ? session : null;
  } catch {
    return null;
  }
}

/**
 * Calls `act` when another tab has signed this session out.
 * @param {Session} session
 * @param {() => void} act
 * @param {AbortSignal} signal
 */
export function watchSession({ id }, act, signal) {
  const check = () => findSession()?.id !== id && act();
  addEventListener("storage", ({ key }) => (key === KEPT || key === null) && check(), { signal });
}

/**
 * @param {Session} session
 * @param {boolean} remember Whether the session outlives this tab.
 */
export function keepSession(session, remember) {
  remove(remember ? "sessionStorage" : "localStorage", KEPT);
  write(remember ? "localStorage" : "sessionStorage", KEPT, JSON.stringify(session));
}

export function forgetSession() {
  remove("sessionStorage", KEPT);
  remove("localStorage", KEPT);
}
