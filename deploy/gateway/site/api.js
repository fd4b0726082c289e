// Calls the API of this origin as one user.

import { hasWords } from "./words.js";

const PAUSE_SECONDS = 2;
/** A page of the list of records comes at once, and the browser shows it at once. */
const PAGE_RECORDS = "25";
/** The token is wrong; or the file is too large, no WAV, or broken. */
const FINAL = [401, 413, 415, 422];

/**
 * @typedef {{id: string, url: string, listen_url: string, user_id: string, title: string | null, duration_seconds: number,
 *   size_bytes: number, created_at: string, lost_at: string | null, truncated: boolean}} RecordDocument
 */

/** A response that is a problem (RFC 9457), or no response at all. */
export class Refusal extends Error {
  /**
   * @param {number} status 0 without a response
   * @param {{type?: string, detail?: string}} problem
   * @param {number | null} pauseSeconds after which the same request may succeed (Retry-After)
   */
  constructor(status, problem = {}, pauseSeconds = null) {
    super(problem.detail ?? "");
    this.status = status;
    this.type = problem.type?.replace("/problems/", "") ?? (status ? "unavailable" : "no-connection");
    this.pauseSeconds = pauseSeconds;
  }

  /** The key of the sentence that says what is wrong. */
  get words() {
    return hasWords(`problem.${this.type}`) ? `problem.${this.type}` : "problem.internal-error";
  }

  /** Whether the same request may succeed soon. */
  get mayPass() {
    return !this.status || this.pauseSeconds !== null;
  }

  /** Whether the same request always fails. */
  get isFinal() {
    return FINAL.includes(this.status);
  }

  get pauseMilliseconds() {
    return 1000 * (this.pauseSeconds ?? PAUSE_SECONDS);
  }

  /** Whether the token is wrong, or has been replaced. */
  get isUnauthorized() {
    return this.type === "invalid-credentials";
  }
}

/**
 * @param {number} status
 * @param {string} text
 * @param {string | null} retryAfter
 */
export function makeRefusal(status, text, retryAfter) {
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    // A proxy in front of the gateway may respond with its own page.
  }
  return new Refusal(status, problem, retryAfter ? Number(retryAfter) : null);
}

/**
 * Sends a request and returns the JSON of the response. Throws a Refusal.
 * @param {string} path
 * @param {RequestInit} options
 */
async function request(path, options = {}) {
  const response = await fetch(path, { cache: "no-cache", ...options }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0);
  });
  if (!response.ok) throw makeRefusal(response.status, await response.text(), response.headers.get("Retry-After"));
  return response.status === 204 ? null : response.json();
}

/**
 * Creates a user.
 * @param {string} name
 * @param {string} signUpKey
 * @returns {Promise<import("./session.js").Session>}
 */
export function createUser(name, signUpKey) {
  const headers = { "Content-Type": "application/json", ...(signUpKey && { "X-Signup-Key": signUpKey }) };
  return request("/users", { method: "POST", headers, body: JSON.stringify({ name }) });
}

/**
 * Returns the loudest sample, from 0 to 1, of each of `count` equal pieces of a record. Its link is enough for that.
 * @param {string} id
 * @param {string} user
 * @param {number} count
 */
export async function getPeaks(id, user, count) {
  const query = new URLSearchParams({ user, points: String(count) });
  /** @type {{data: number[]}} */
  const { data } = await request(`/records/${id}/waveform?${query}`, { cache: "default" });
  return Array.from({ length: data.length / 2 }, (_, at) => Math.max(-data[2 * at], data[2 * at + 1]) / 128);
}

export class Api {
  /**
   * @param {string} id
   * @param {string} token
   */
  constructor(id, token) {
    const octets = String.fromCharCode(...new TextEncoder().encode(`${id}:${token}`));
    this.headers = { Authorization: `Basic ${btoa(octets)}` };
  }

  /** @returns {Promise<{name: string}>} */
  getUser() {
    return request("/users/me", { headers: this.headers });
  }

  /**
   * @param {string} wanted a part of the title, or ""
   * @param {string | null} cursor
   * @param {AbortSignal} signal
   * @returns {Promise<{records: RecordDocument[], next_cursor: string | null}>}
   */
  getRecords(wanted, cursor, signal) {
    const query = new URLSearchParams({ limit: PAGE_RECORDS, ...(wanted && { q: wanted }), ...(cursor && { cursor }) });
    return request(`/records?${query}`, { headers: this.headers, signal });
  }

  /**
   * @param {string} id
   * @param {string | null} title
   * @returns {Promise<RecordDocument>}
   */
  renameRecord(id, title) {
    const headers = { ...this.headers, "Content-Type": "application/json" };
    return request(`/records/${id}`, { method: "PATCH", headers, body: JSON.stringify({ title }) });
  }

  /**
   * Deletes a record, even while the page closes.
   * @param {string} id
   */
  deleteRecord(id) {
    return request(`/records/${id}`, { method: "DELETE", headers: this.headers, keepalive: true });
  }
}
