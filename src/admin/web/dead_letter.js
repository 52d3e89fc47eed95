// The Dead letter view: what outputs refused, by reason, and its replay.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { bytes, count, full, plural } from './format.js';
import { empty, problem } from './parts.js';

export class DeadLetter {
  data = null;
  entries = [];
  next = null;
  reason = '';
  error = null;
  outcome = null;
  replaying = false;

  constructor(app) {
    this.app = app;
  }

  start() {
    this.load();
  }

  async load(cursor = undefined) {
    try {
      const page = await get('dead-letter', { cursor, reason: this.reason });
      this.data = page;
      this.entries = cursor ? [...this.entries, ...page.entries] : page.entries;
      this.next = page.next;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.app.update();
  }

  choose(reason) {
    this.reason = this.reason === reason ? '' : reason;
    this.load();
  }

  async replay() {
    this.replaying = true;
    this.outcome = null;
    this.app.update();
    try {
      this.outcome = await post('dead-letter/replay');
    } catch (error) {
      this.outcome = { message: error.message, failed: true };
    }
    this.replaying = false;
    await this.load();
  }

  reasons() {
    return html`
      <table aria-label="Reasons">
        <thead><tr><th scope="col">Reason</th><th scope="col">Output</th><th scope="col" class="n">Documents</th><th scope="col" class="n hide">Size</th></tr></thead>
        <tbody>${this.data.reasons.map(({ reason, output, count: number, bytes: size }) => html`
          <tr><td class="t"><button class="plain ${this.reason === reason ? 'on' : ''}" aria-pressed=${this.reason === reason}
            @click=${() => this.choose(reason)}>${reason}</button></td><td>${output}</td><td class="n">${count(number)}</td><td class="n hide">${bytes(size)}</td></tr>`)}</tbody>
      </table>`;
  }

  entry(entry) {
    return html`
      <details class="panel raw">
        <summary><span class="dim">${entry.time ? full(entry.time) : ''}</span> <code>${entry.documentId ?? 'no id'}</code>
          <span class="dim">${entry.index ?? ''}</span> ${entry.reason}</summary>
        <pre tabindex="0"><code>${JSON.stringify(entry.document, null, 2)}</code></pre>
      </details>`;
  }

  template() {
    const { data } = this;
    const some = data && data.total > 0;
    return html`
      <div class="page">
        <div class="head"><h1>Dead letter</h1>
          ${some ? html`<span class="dim">${plural(data.total, 'document')}, ${bytes(data.bytes)}</span>
            <button class="primary right" ?disabled=${this.replaying} @click=${() => this.replay()}>${this.replaying ? 'Replaying …' : 'Replay'}</button>` : nothing}
        </div>
        ${this.error ? problem(this.error) : nothing}
        ${this.outcome ? html`<p class=${this.outcome.failed ? 'problem' : 'panel note'} role="status">${this.outcome.message}</p>` : nothing}
        ${!data ? nothing : some ? html`${this.reasons()}
          <h2>Documents${this.reason ? ' with this reason' : ''}</h2>
          ${this.entries.map((entry) => this.entry(entry))}
          ${this.next ? html`<p class="more"><button @click=${() => this.load(this.next)}>More</button></p>` : nothing}`
          : empty('Nothing was refused', html`<p class="dim">Documents that an output refuses for good are kept here with the reason.</p>`)}
      </div>`;
  }
}
