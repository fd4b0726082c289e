// A short message at the lower edge, at times with a button. A new message replaces the one before.

import { find } from "./elements.js";
import { setWords } from "./words.js";

const SECONDS = 5;
let timer = 0;
/** What happens when the present message goes without its button. @type {() => void} */
let leave = () => {};
/** Where the focus goes that was on the button. @type {() => void} */
let focusNext = () => {};

/**
 * @param {{words: string, values?: import("./words.js").Values, button?: string, onButton?: () => void, onEnd?: () => void,
 *   focusNext?: () => void}} message
 */
export function showToast({ words, values = {}, button, onButton = () => {}, onEnd = () => {}, ...next }) {
  endToast();
  const toast = find("#toast");
  const text = document.createElement("span");
  toast.replaceChildren(text);
  setWords(text, { words, values });
  if (button) {
    const undo = document.createElement("button");
    undo.type = "button";
    undo.className = "secondary";
    setWords(undo, { words: button });
    undo.addEventListener("click", () => {
      leave = onButton;
      endToast();
    });
    toast.append(undo);
    undo.focus();
  }
  leave = onEnd;
  focusNext = next.focusNext ?? (() => {});
  timer = setTimeout(endToast, SECONDS * 1000);
}

/** Ends the present message at once. */
export function endToast() {
  clearTimeout(timer);
  const act = leave;
  leave = () => {};
  const toast = find("#toast");
  const hadFocus = toast.contains(document.activeElement);
  toast.replaceChildren();
  act();
  if (hadFocus && document.activeElement === document.body) focusNext();
}
