// The Open view: traces that are being gathered.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { count, duration, plural } from './format.js';
import { empty, problem } from './parts.js';

const INTERVAL_MS = 2000;

export class Open {
  data = null;
  error = null;
  filter = '';

  constructor(app) {
    this.app = app;
  }

  start() {
    this.load();
    this.timer = setInterval(() => !document.hidden && this.load(), INTERVAL_MS);
  }

  stop() {
    clearInterval(this.timer);
  }

  async load() {
    try {
      this.data = await get('open');
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.app.update();
  }

  row(trace) {
    return html`
      <tr>
        <td class="n">${duration(trace.ageMs)}</td>
        <td class="n hide">${duration(trace.idleMs)}</td>
        <td class="n">${count(trace.lines)}</td>
        <td class="hide">${trace.completed ? 'completed, waits for late lines' : 'open'}</td>
        <td class="id"><code>${trace.id}</code></td>
        <td class="t">${trace.text}</td>
      </tr>`;
  }

  table() {
    const wanted = this.filter.toLowerCase();
    const traces = this.data.traces.filter(({ id, text }) => `${id} ${text}`.toLowerCase().includes(wanted));
    if (traces.length === 0) {
      return this.data.traces.length ? empty('No open trace matches') : empty('No trace is open', html`<p class="dim">A trace is
        open from its first line until it is complete, or silent for the idle timeout.</p>`);
    }
    return html`
      <table aria-label="Open traces">
        <thead><tr><th scope="col" class="n">Age</th><th scope="col" class="n hide">Silent</th><th scope="col" class="n">Lines</th>
          <th scope="col" class="hide">State</th><th scope="col">Trace</th><th scope="col">Newest text</th></tr></thead>
        <tbody>${traces.map((trace) => this.row(trace))}</tbody>
      </table>`;
  }

  template() {
    return html`
      <div class="page">
        <div class="head"><h1>Open traces</h1>
          ${this.data ? html`<span class="dim">${plural(this.data.total, 'trace')} with ${plural(this.data.lines, 'line')}${
            this.data.total > this.data.traces.length ? `; the ${count(this.data.traces.length)} oldest are shown` : ''}</span>` : nothing}
          <input type="search" class="right" aria-label="Filter open traces" placeholder="Filter" .value=${this.filter}
            @input=${(event) => {
              this.filter = event.target.value;
              this.app.update();
            }}>
        </div>
        ${this.error ? problem(this.error) : nothing}
        ${this.data ? this.table() : nothing}
      </div>`;
  }
}
