// The keyboard: single keys outside of text fields.

import { html } from './vendor/lit-html/lit-html.js';

const HELP = [
  ['/', 'Go to the search box'],
  ['j, k', 'Next, previous trace'],
  ['Enter', 'Open the trace'],
  ['u', 'Back to the list'],
  ['Arrows, Enter', 'On the histogram: choose a range and zoom in; Backspace zooms out'],
  ['g t, l, o, d, s', 'Go to Traces, Live, Open, Dead letter, Server'],
  ['?', 'This help'],
];

const GO_TO = { t: '/', l: '/live', o: '/open', d: '/dead-letter', s: '/server' };
let goPending = false;

const isTyping = (element) =>
  element.matches?.('input:not([type=checkbox]):not([type=range]), textarea, select') || element.isContentEditable;

/** Handles a key that no control has used. */
export function handleKey(app, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target)) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (document.querySelector('dialog[open]')) return;
  const { key } = event;
  if (goPending) {
    goPending = false;
    if (GO_TO[key]) {
      event.preventDefault();
      app.go(GO_TO[key]);
    }
    return;
  }
  const actions = {
    '/': () => {
      const box = document.querySelector('input[type=search]');
      box?.focus();
      box?.select();
    },
    '?': () => document.querySelector('#help').showModal(),
    j: () => moveRow(1),
    k: () => moveRow(-1),
    u: () => app.go(app.listAddress),
    g: () => {
      goPending = true;
      setTimeout(() => {
        goPending = false;
      }, 1000);
    },
  };
  if (actions[key]) {
    event.preventDefault();
    actions[key]();
  }
}

function moveRow(step) {
  const links = [...document.querySelectorAll('a.row')];
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + step));
  links[next]?.focus();
}

export const helpDialog = () => html`
  <dialog id="help" aria-labelledby="help-title">
    <form method="dialog">
      <h2 id="help-title">Keyboard</h2>
      <table>${HELP.map(([key, what]) => html`<tr><th scope="row"><kbd>${key}</kbd></th><td>${what}</td></tr>`)}</table>
      <h2>Search</h2>
      <table>
        <tr><th scope="row"><code>timeout "card declined"</code></th><td>words and phrases, all of them</td></tr>
        <tr><th scope="row"><code>level:&gt;=warn service:order</code></th><td>worst level, service</td></tr>
        <tr><th scope="row"><code>status:500 duration:&gt;1s</code></th><td>any field, how long</td></tr>
        <tr><th scope="row"><code>time* -health (a OR b)</code></th><td>beginnings, not, either</td></tr>
      </table>
      <button autofocus>Close</button>
    </form>
  </dialog>`;
