// Keeps the user's id and token in this browser: for this tab, or for longer if the person wishes.

import { read, remove, write } from "./storage.js";

/** @typedef {{id: string, token: string, name: string}} Session */

const KEPT = "waxwing.session";

/** @returns {Session | null} */
export function findSession() {
  return JSON.parse(read("sessionStorage", KEPT) ?? read("localStorage", KEPT) ?? "null");
}

/**
 * @param {Session} session
 * @param {boolean} remember Whether the session outlives this tab.
 */
export function keepSession(session, remember) {
  forgetSession();
  write(remember ? "localStorage" : "sessionStorage", KEPT, JSON.stringify(session));
}

export function forgetSession() {
  remove("sessionStorage", KEPT);
  remove("localStorage", KEPT);
}
