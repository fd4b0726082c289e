// Chooses the language, and puts its words into the page.
//
// An element names its words in attributes, so that another language can replace them at any time: `data-words` for the
// text, `data-label` for the accessible name, `data-hint` for the placeholder and `data-spoken` for the value of a slider.
// `data-values` has the values for all of them, as JSON. `{size:bytes}` in a sentence is the value `size`, written as
// bytes.

import en from "./en.js";
import ru from "./ru.js";
import { read, write } from "./storage.js";

/** @typedef {Record<string, string | number | null>} Values */
/** @typedef {string | Record<string, string>} Words Words for one number each (`one`, `few`, `many`, `other`), or for all. */

/** @type {Record<string, Record<string, Words>>} */
const languages = { en, ru };
const KEPT = "waxwing.language";

/** The languages of the browser, such as en-GB, which also say how to write a date. */
const locales = navigator.languages.filter((name) => name.slice(0, 2) in languages);
const kept = read("localStorage", KEPT) ?? "";
// The storage may have a language that the page does not speak.
let language = Object.hasOwn(languages, kept) ? kept : (locales[0] ?? "en").slice(0, 2);
const findLocale = () => locales.find((name) => name.startsWith(language)) ?? language;

/** @type {Record<string, (value: any) => string>} */
const formats = {
  number: (count) => format(Intl.NumberFormat, {}, count),
  bytes: (count) => measure(count, ["byte", "kilobyte", "megabyte", "gigabyte"], 1000, "short"),
  speed: (count) => measure(count, ["byte", "kilobyte", "megabyte", "gigabyte"], 1000, "short", "-per-second"),
  left: (seconds) => measure(seconds, ["second", "minute", "hour"], 60, "long"),
  length: (seconds) => writeLength(seconds),
  // A sentence in a sentence.
  words: (key) => say(key),
  day: (time) => format(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "short" }, new Date(time)),
};

/** What has been used: the browser takes a hundred times as long to make a format as to use it. @type {Map<string, any>} */
const madeFormats = new Map();

/**
 * @param {any} Format a class of Intl
 * @param {object} options
 * @param {number | Date} value
 * @returns {string}
 */
function format(Format, options, value) {
  const key = findLocale() + JSON.stringify(options);
  if (!madeFormats.has(key)) madeFormats.set(key, new Format(findLocale(), options));
  return madeFormats.get(key).format(value);
}

/**
 * @param {number} count
 * @param {string[]} units Each is `step` times the one before.
 * @param {number} step
 * @param {"short" | "long"} unitDisplay
 * @param {string} suffix
 */
function measure(count, units, step, unitDisplay, suffix = "") {
  const power = Math.min(Math.floor(Math.log(Math.max(count, 1)) / Math.log(step)), units.length - 1);
  const value = count / step ** power;
  const maximumFractionDigits = power && unitDisplay === "short" && value < 100 ? 1 : 0;
  return format(Intl.NumberFormat, { style: "unit", unit: units[power] + suffix, unitDisplay, maximumFractionDigits }, value);
}

/**
 * Returns a length such as 3:05 or 1:00:00, the same in every language.
 * @param {number} seconds
 */
function writeLength(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.slice(parts[0] ? 0 : 1).map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

/**
 * Returns a sentence in the chosen language.
 * @param {string} key
 * @param {Values} values If the words depend on a number, it is `count`.
 */
export function say(key, values = {}) {
  const found = languages[language][key] ?? key;
  const words = typeof found === "string" ? found : found[new Intl.PluralRules(language).select(Number(values.count))];
  return words.replace(/\{(\w+)(?::(\w+))?\}/g, (_, name, as) => (as ? formats[as](values[name]) : String(values[name])));
}

/** @param {string} key */
export const hasWords = (key) => key in languages[language];

/**
 * Gives an element its words, now and after each change of the language.
 * @param {Element | null} element
 * @param {{words?: string, label?: string, spoken?: string, values?: Values}} what
 */
export function setWords(element, { values, ...keys }) {
  const target = /** @type {HTMLElement} */ (element);
  Object.assign(target.dataset, keys);
  if (values) target.dataset.values = JSON.stringify(values);
  writeWords(target);
}

/** @param {HTMLElement} element */
function writeWords(element) {
  const { words, label, hint, spoken } = element.dataset;
  const values = JSON.parse(element.dataset.values ?? "{}");
  if (words) element.textContent = say(words, values);
  if (label) element.ariaLabel = say(label, values);
  if (label && element.matches(".icon")) element.title = say(label, values);
  if (hint) element.setAttribute("placeholder", say(hint, values));
  if (spoken) element.ariaValueText = say(spoken, values);
}

/**
 * Writes the words of all elements in `root`.
 * @param {ParentNode} root
 */
export function writeAllWords(root) {
  for (const element of root.querySelectorAll("[data-words], [data-label], [data-hint], [data-spoken]")) {
    writeWords(/** @type {HTMLElement} */ (element));
  }
}

/**
 * Lets the buttons in `group` change the language. Each has the language's name as its value.
 * @param {Element} group
 */
export function offerLanguages(group) {
  const buttons = [...group.querySelectorAll("button")];
  const show = () => {
    document.documentElement.lang = language;
    for (const button of buttons) button.ariaPressed = String(button.value === language);
    writeAllWords(document);
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      language = button.value;
      write("localStorage", KEPT, language);
      show();
    });
  }
  show();
}

/**
 * Says a sentence to screen readers.
 * @param {string} key
 * @param {Values} values
 */
export function announce(key, values = {}) {
  setWords(document.querySelector("#announcement"), { words: key, values });
}
