// The storage of the browser. A person may forbid it, and it may be full: then the page remembers until it is closed.

/** @typedef {"localStorage" | "sessionStorage"} Storage For longer, or for this tab. */

/** @type {Map<string, string>} */
const remembered = new Map();

/**
 * @param {Storage} storage
 * @param {string} key
 * @returns {string | null}
 */
export function read(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return remembered.get(storage + key) ?? null;
  }
}

/**
 * @param {Storage} storage
 * @param {string} key
 * @param {string} value
 */
export function write(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch {
    remembered.set(storage + key, value);
  }
}

/**
 * @param {Storage} storage
 * @param {string} key
 */
export function remove(storage, key) {
  try {
    window[storage].removeItem(key);
  } catch {
    remembered.delete(storage + key);
  }
}
