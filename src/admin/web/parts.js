// Pieces that several views share: badges, texts with matches, rows of traces, states of loading.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { repeat } from './vendor/lit-html/directives/repeat.js';
import { LEVELS, count, duration, pieces, utc, when } from './format.js';

/** Services shown in a row; the others are counted. */
const MAX_CHIPS = 4;

/** The badge of a level. */
export function badge(level) {
  const known = LEVELS.includes(level) ? level : 'none';
  return html`<span class="lv ${known}">${level ?? '–'}</span>`;
}

/** A text with its matches marked. */
export const marked = (text, ranges) =>
  pieces(text ?? '', ranges).map(([piece, isMatch]) => (isMatch ? html`<mark>${piece}</mark>` : piece));

/** Services as chips. */
export function chips(services) {
  const shown = services.slice(0, MAX_CHIPS).map((service) => html`<span class="chip">${service}</span>`);
  const more = services.length - shown.length;
  return html`${shown}${more > 0 ? html`<span class="chip" title=${services.join(', ')}>+${more}</span>` : nothing}`;
}

/** The address of a trace. */
export const traceAddress = (trace) => `/trace/${encodeURIComponent(trace.id ?? trace.key)}`;

/** A table of traces. */
export function traceTable(traces, label) {
  return html`
    <table class="traces" aria-label=${label}>
      <thead><tr><th scope="col">Time</th><th scope="col">Level</th><th scope="col" class="hide">Services</th>
        <th scope="col" class="hide n">Duration</th><th scope="col" class="hide n">Lines</th><th scope="col">Text</th></tr></thead>
      <tbody>${repeat(traces, (trace) => `${trace.index} ${trace.key}`, traceRow)}</tbody>
    </table>`;
}

function traceRow(trace) {
  const late = trace.late > 0 ? html` <span class="flag" title="Lines that arrived after the trace was written">${count(trace.late)} late</span>` : nothing;
  const truncated = trace.truncated > 0 ? html` <span class="flag">truncated</span>` : nothing;
  return html`
    <tr>
      <td class="time" title=${utc(trace.time)}>${when(trace.time)}</td>
      <td>${badge(trace.level)}</td>
      <td class="hide">${chips(trace.services ?? [])}</td>
      <td class="hide n">${duration(trace.durationMs)}</td>
      <td class="hide n">${count(trace.lines)}</td>
      <td class="t"><a class="row" href=${traceAddress(trace)}>${marked(trace.text, trace.highlights) || 'no text'}</a>${late}${truncated}</td>
    </tr>`;
}

/** What is wrong, for an error of the API; the place of a mistake is marked. */
export function problem(error, query = '') {
  const place = error.at == null ? nothing : html`<pre class="place"><code>${query}</code>
<code>${' '.repeat(columns(query, error.at))}${'^'.repeat(Math.max(1, columns(query, error.at + (error.length ?? 1)) - columns(query, error.at)))}</code></pre>`;
  return html`<div class="problem" role="alert"><p>${error.message}</p>${place}</div>`;
}

/** Characters before a byte offset. */
function columns(text, offset) {
  const encoder = new TextEncoder();
  let [bytes, characters] = [0, 0];
  for (const character of text) {
    if (bytes >= offset) break;
    bytes += encoder.encode(character).length;
    characters += 1;
  }
  return characters;
}

/** A line for an empty view. */
export const empty = (title, body = nothing) => html`<div class="empty panel"><h2>${title}</h2>${body}</div>`;

/** Copies a text and says so for a moment. */
export async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Copying is not permitted here';
  }
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
}
