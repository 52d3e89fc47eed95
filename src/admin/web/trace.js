// The Trace view: the waterfall and the lines of one trace.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { count, duration, full, plural, quoted, utc } from './format.js';
import { badge, copy, empty, problem } from './parts.js';
import { waterfall } from './waterfall.js';

/** Lines shown at first, and more at each step. */
const LINES_STEP = 2000;

export class Trace {
  data = null;
  error = null;
  filter = '';
  wrap = true;
  shown = LINES_STEP;
  chosen = null;
  width = 0;

  constructor(app) {
    this.app = app;
    this.id = decodeURIComponent(location.pathname.slice('/trace/'.length));
  }

  start() {
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width !== this.width) {
        this.width = width;
        this.app.update();
      }
    });
    this.load();
  }

  stop() {
    this.observer.disconnect();
    this.abort?.abort();
  }

  rendered() {
    const lanes = document.querySelector('.lanes');
    if (lanes && lanes !== this.observed) {
      this.observed = lanes;
      this.observer.disconnect();
      this.observer.observe(lanes);
    }
  }

  addressChanged() {
    const line = Number(new URLSearchParams(location.search).get('line'));
    this.chosen = Number.isInteger(line) && line > 0 ? line : null;
  }

  async load() {
    this.abort = new AbortController();
    try {
      this.data = await get(`traces/${encodeURIComponent(this.id)}`, {}, this.abort.signal);
      for (const trace of this.data.traces) {
        trace.lines.forEach((line, index) => {
          line.number = index + 1;
        });
      }
      this.error = null;
      this.addressChanged();
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.error = error;
    }
    this.app.update();
  }

  choose(number) {
    this.chosen = number;
    this.app.setQuery(`?line=${number}`);
    this.app.update();
    requestAnimationFrame(() => {
      document.querySelector(`#line-${number}`)?.scrollIntoView({ block: 'center' });
    });
  }

  visible(lines) {
    const wanted = this.filter.toLowerCase();
    if (!wanted) return lines;
    return lines.filter(({ text, service, level }) => `${level ?? ''} ${service ?? ''} ${text}`.toLowerCase().includes(wanted));
  }

  asText(trace) {
    return trace.lines
      .map(({ time, level, service, text }) => [utc(time), level ?? '-', service ?? '-', text].join(' '))
      .join('\n');
  }

  similar(summary) {
    const terms = [
      summary.level ? `level:${summary.level}` : '',
      ...(summary.services ?? []).slice(0, 3).map((service) => `service:${quoted(service)}`),
    ];
    return `/?${new URLSearchParams({ q: terms.filter(Boolean).join(' ') })}`;
  }

  head(trace) {
    const { summary } = trace;
    const services = summary.services?.length ?? 0;
    const facts = [
      full(summary.time),
      services ? plural(services, 'service') : '',
      plural(summary.lines, 'line'),
      summary.reason ?? '',
      summary.late ? `${count(summary.late)} late` : '',
      summary.truncated ? `${count(summary.truncated)} lines too many` : '',
      trace.index ?? '',
    ].filter(Boolean);
    const json = () => JSON.stringify(trace.document, null, 2);
    return html`
      <div class="head">
        ${badge(summary.level)}<h1 class="id"><code>${this.data.id}</code></h1>
        <span>${duration(summary.durationMs)}</span><span class="dim" title=${utc(summary.time)}>${facts.join(' · ')}</span>
        <span class="right actions">
          <button class="plain" @click=${(event) => copy(location.href, event.currentTarget)}>Copy link</button>
          <button class="plain" @click=${(event) => copy(this.asText(trace), event.currentTarget)}>Copy text</button>
          <button class="plain" @click=${(event) => copy(json(), event.currentTarget)}>Copy JSON</button>
          <a href=${this.similar(summary)}>Find similar</a>
        </span>
      </div>`;
  }

  line(line) {
    const flags = [line.late ? 'late' : '', line.truncated ? 'truncated' : ''].filter(Boolean);
    return html`
      <li id="line-${line.number}" class="${line.level ?? 'none'} ${line.number === this.chosen ? 'chosen' : ''}">
        <a class="offset" href="?line=${line.number}" title=${utc(line.time)}
          @click=${(event) => {
            event.preventDefault();
            event.stopPropagation();
            this.choose(line.number);
          }}>+${duration(line.offsetMs)}</a>
        ${badge(line.level)}<span class="dim service">${line.service ?? ''}</span>
        <span class="text">${line.text}${flags.map((flag) => html` <span class="flag">${flag}</span>`)}</span>
      </li>`;
  }

  lines(trace) {
    const visible = this.visible(trace.lines);
    const rest = visible.length - this.shown;
    return html`
      <div class="tools">
        <input type="search" aria-label="Filter the lines" placeholder="Filter lines" .value=${this.filter}
          @input=${(event) => {
            this.filter = event.target.value;
            this.app.update();
          }}>
        <label><input type="checkbox" .checked=${this.wrap} @change=${(event) => {
          this.wrap = event.target.checked;
          this.app.update();
        }}> Wrap</label>
        <span class="dim" role="status">${this.filter ? `${count(visible.length)} of ${plural(trace.lines.length, 'line')}` : ''}</span>
      </div>
      <ol class="lines panel ${this.wrap ? 'wrap' : ''}" aria-label="Lines in time order" tabindex="0">${visible.slice(0, this.shown).map((line) => this.line(line))}</ol>
      ${rest > 0 ? html`<p class="more"><button @click=${() => {
        this.shown += LINES_STEP;
        this.app.update();
      }}>${plural(rest, 'more line')}</button></p>` : nothing}`;
  }

  one(trace) {
    const raw = JSON.stringify(trace.document, null, 2);
    return html`
      <article>
        ${this.head(trace)}
        <div class="lanes panel">${this.width ? waterfall(trace.lines, this.width, this.chosen, (number) => this.choose(number)) : nothing}</div>
        ${this.lines(trace)}
        <details class="panel raw"><summary>Document</summary><pre tabindex="0"><code>${raw}</code></pre></details>
      </article>`;
  }

  template() {
    if (this.error?.status === 404) {
      return html`<div class="page">${empty('No such trace', html`<p>There is no document of <code>${this.id}</code>. It may be
        <a href="/open">open</a> still, or past its retention.</p><p><a href=${this.app.listAddress}>Back to the list</a></p>`)}</div>`;
    }
    return html`
      <div class="page">
        <p class="back"><a href=${this.app.listAddress}>‹ Traces</a></p>
        ${this.error ? problem(this.error) : nothing}
        ${this.data ? this.data.traces.map((trace) => this.one(trace)) : this.error ? nothing : html`<p class="dim" role="status">Loading …</p>`}
      </div>`;
  }
}
