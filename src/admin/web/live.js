// The Live view: traces as they are sealed, with pause and filter.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { tail } from './api.js';
import { plural } from './format.js';
import { empty, traceTable } from './parts.js';

const MAX_ROWS = 500;
const TYPING_DELAY_MS = 300;
/** The rate is that of this many seconds. */
const RATE_SECONDS = 5;

export class Live {
  traces = [];
  waiting = [];
  lost = 0;
  seen = [];
  state = '';
  paused = false;

  constructor(app) {
    this.app = app;
  }

  start() {
    this.addressChanged();
    this.timer = setInterval(() => this.app.update(), 1000);
  }

  stop() {
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.end?.();
  }

  addressChanged() {
    const query = new URLSearchParams(location.search).get('q') ?? '';
    if (this.end && query === this.query) return;
    this.query = query;
    this.end?.();
    this.traces = [];
    this.waiting = [];
    this.end = tail(
      this.query,
      (traces, lost) => this.arrived(traces, lost),
      (text) => {
        this.state = text;
        this.app.update();
      },
    );
  }

  arrived(traces, lost) {
    this.lost += lost;
    this.seen.push([Date.now(), traces.length + lost]);
    const newest = [...traces].reverse();
    const known = new Set(newest.map((trace) => `${trace.index} ${trace.key}`));
    const without = (list) => list.filter((trace) => !known.has(`${trace.index} ${trace.key}`));
    if (this.paused) {
      this.waiting = [...newest, ...without(this.waiting)].slice(0, MAX_ROWS);
    } else {
      this.traces = [...newest, ...without(this.traces)].slice(0, MAX_ROWS);
    }
    this.app.update();
  }

  rate() {
    const since = Date.now() - RATE_SECONDS * 1000;
    this.seen = this.seen.filter(([time]) => time > since);
    return this.seen.reduce((sum, [, number]) => sum + number, 0) / RATE_SECONDS;
  }

  pause() {
    this.paused = !this.paused;
    if (!this.paused) {
      this.traces = [...this.waiting, ...this.traces].slice(0, MAX_ROWS);
      this.waiting = [];
    }
    this.app.update();
  }

  typed(event) {
    clearTimeout(this.typing);
    const q = event.target.value;
    this.typing = setTimeout(() => {
      this.app.setQuery(q ? `?${new URLSearchParams({ q })}` : '?');
      this.addressChanged();
    }, TYPING_DELAY_MS);
  }

  template() {
    return html`
      <div class="page">
        <div class="head"><h1>Live</h1>
          <span class="dim" role="status">${plural(Math.round(this.rate()), 'trace')}/s${this.paused ? ` · paused, ${plural(this.waiting.length, 'trace')} waiting` : ''}</span>
        </div>
        <form class="search" role="search" @submit=${(event) => event.preventDefault()}>
          <input type="search" .value=${this.query} placeholder="level:>=warn" aria-label="Filter the live traces"
            spellcheck="false" autocomplete="off" autocapitalize="off" @input=${(event) => this.typed(event)}>
          <button type="button" aria-pressed=${this.paused} @click=${() => this.pause()}>${this.paused ? 'Go on' : 'Pause'}</button>
          <button type="button" @click=${() => {
            this.traces = [];
            this.lost = 0;
            this.app.update();
          }}>Clear</button>
        </form>
        ${this.state ? html`<p class="problem" role="status">${this.state}</p>` : nothing}
        ${this.lost ? html`<p class="dim">${plural(this.lost, 'trace')} came faster than this page shows them.</p>` : nothing}
        ${this.traces.length ? traceTable(this.traces, 'Live traces') : empty('Waiting for traces', html`<p class="dim">Each trace appears
          when it is sealed: complete, or silent for the idle timeout.</p>`)}
      </div>`;
  }
}
