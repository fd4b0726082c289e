// Keeps the user's id and token in this browser: for this tab, or for longer if the person wishes.

/** @typedef {{id: string, token: string, name: string}} Session */

const KEPT = "waxwing.session";

/** @returns {Session | null} */
export function findSession() {
  return JSON.parse(sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT) ?? "null");
}

/**
 * @param {Session} session
 * @param {boolean} remember Whether the session outlives this tab.
 */
export function keepSession(session, remember) {
  forgetSession();
  (remember ? localStorage : sessionStorage).setItem(KEPT, JSON.stringify(session));
}

export function forgetSession() {
  sessionStorage.removeItem(KEPT);
  localStorage.removeItem(KEPT);
}
