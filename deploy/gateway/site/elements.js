// Finds and copies elements of the page.

import { writeAllWords } from "./words.js";

/**
 * Returns the element that a selector names. The page always has it.
 * @template {Element} [T=HTMLElement]
 * @param {string} selector
 * @param {ParentNode} root
 * @returns {T}
 */
export function find(selector, root = document) {
  const element = root.querySelector(selector);
  if (!element) throw new Error(`The page has no ${selector}`);
  return /** @type {T} */ (element);
}

/**
 * Returns a copy of a template's content, with its words.
 * @param {string} id
 */
export function copyTemplate(id) {
  const copy = /** @type {DocumentFragment} */ (/** @type {HTMLTemplateElement} */ (find(`template#${id}`)).content.cloneNode(true));
  writeAllWords(copy);
  return copy;
}

/**
 * Saves a file as a download.
 * @param {Blob} file
 * @param {string} name
 */
export function saveFile(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  // The browser reads the file a little later.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * Copies text to the clipboard. The browser offers its clipboard only to pages from this machine or over TLS; elsewhere
 * the text is copied from a text field.
 * @param {string} text
 */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
