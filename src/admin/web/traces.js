// The Traces view: search, facets, histogram and the list of traces.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { get, queryString, tail } from './api.js';
import { LEVELS, count, duration, plural, quoted } from './format.js';
import { Histogram } from './histogram.js';
import { empty, problem, traceTable } from './parts.js';
import { start } from './start.js';

const PAGE = 50;
/** Rows kept in the list while new traces come in at its top. */
const MAX_ROWS = 1000;
/** Nearer to the top than this the reader sees new traces at once. */
const NEAR_TOP_PX = 60;
const TYPING_DELAY_MS = 300;
const REFRESH_MS = 5000;

const RANGES = [
  ['-5m', 'Last 5 minutes'],
  ['-15m', 'Last 15 minutes'],
  ['-1h', 'Last hour'],
  ['-6h', 'Last 6 hours'],
  ['-24h', 'Last 24 hours'],
  ['-7d', 'Last 7 days'],
  ['', 'All time'],
];
const DEFAULT_RANGE = '-24h';
const SORTS = [
  ['newest', 'Newest first'],
  ['oldest', 'Oldest first'],
  ['slowest', 'Slowest first'],
  ['worst', 'Worst first'],
];
/** Steps of the slider for the duration, ms. */
const DURATIONS = [0, 10, 50, 100, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/** What the address says about the view. */
function stateOf(search) {
  const from = new URLSearchParams(search);
  const list = (name) => from.getAll(name);
  return {
    q: from.get('q') ?? '',
    from: from.get('from') ?? DEFAULT_RANGE,
    to: from.get('to') ?? '',
    sort: from.get('sort') ?? 'newest',
    levels: list('level'),
    services: list('service'),
    longer: Number(from.get('longer') ?? 0) || 0,
    live: from.get('live') === '1',
  };
}

/** The address of a state. */
function addressOf(state) {
  const to = new URLSearchParams();
  if (state.q) to.set('q', state.q);
  if (state.from !== DEFAULT_RANGE) to.set('from', state.from);
  if (state.to) to.set('to', state.to);
  if (state.sort !== 'newest') to.set('sort', state.sort);
  for (const level of state.levels) to.append('level', level);
  for (const service of state.services) to.append('service', service);
  if (state.longer) to.set('longer', state.longer);
  if (state.live) to.set('live', '1');
  const text = to.toString();
  return text ? `?${text}` : '?';
}

const either = (terms) => (terms.length > 1 ? `(${terms.join(' OR ')})` : terms.join(''));
const levelTerm = (level) => (level === 'none' ? '-level:*' : `level:${level}`);

/** The query of the text box together with the facets. */
export function queryOf({ q, levels, services, longer }) {
  const facets = [
    either(levels.map(levelTerm)),
    either(services.map((service) => `service:${quoted(service)}`)),
    longer ? `duration:>${longer}ms` : '',
  ].filter(Boolean);
  const text = q.trim();
  if (!text) return facets.join(' ');
  return facets.length ? `(${text}) ${facets.join(' ')}` : text;
}

export class Traces {
  traces = null;
  next = null;
  facets = null;
  error = null;
  facetError = null;
  loading = false;
  fresh = [];
  lost = 0;
  liveState = '';
  ranges = [];
  /** Whether a narrow window shows the filters. */
  showsFilters = false;

  constructor(app) {
    this.app = app;
    this.histogram = new Histogram(
      app,
      (from, to) => this.zoom(from, to),
      () => this.zoomOut(),
    );
  }

  start() {
    this.addressChanged();
    this.timer = setInterval(() => this.refresh(), REFRESH_MS);
    this.onScroll = () => this.takeFreshIfAtTop();
    window.addEventListener('scroll', this.onScroll, { passive: true });
  }

  stop() {
    clearInterval(this.timer);
    clearTimeout(this.typing);
    window.removeEventListener('scroll', this.onScroll);
    this.abort?.abort();
    this.endTail?.();
  }

  addressChanged() {
    this.state = stateOf(location.search);
    this.load();
  }

  /** Changes the state, the address and the results. */
  change(changes) {
    this.state = { ...this.state, ...changes };
    this.app.setQuery(addressOf(this.state));
    this.app.listAddress = location.pathname + location.search;
    this.load();
  }

  parameters() {
    const { from, to } = this.state;
    return { q: queryOf(this.state), from, to };
  }

  async load() {
    this.abort?.abort();
    const { signal } = (this.abort = new AbortController());
    this.loading = true;
    this.fresh = [];
    this.lost = 0;
    this.restartTail();
    this.app.update();
    this.loadOverview(signal);
    try {
      const page = await get('traces', { ...this.parameters(), sort: this.state.sort, limit: PAGE }, signal);
      if (signal.aborted) return;
      this.traces = page.traces;
      this.next = page.next;
      this.lag = page.lag?.documents ?? 0;
      this.error = null;
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.error = error;
    }
    this.loading = false;
    this.app.update();
  }

  /** Histogram and facets, which may take longer than the list. */
  async loadOverview(signal) {
    const { q, longer } = this.state;
    const buckets = window.innerWidth < 600 ? 40 : 80;
    const facetQuery = queryOf({ q, longer, levels: [], services: [] });
    const [histogram, facets] = await Promise.allSettled([
      get('histogram', { ...this.parameters(), buckets }, signal),
      get('facets', { ...this.parameters(), q: facetQuery }, signal),
    ]);
    if (signal.aborted) return;
    if (histogram.status === 'fulfilled' && !this.histogram.dragFrom) this.histogram.set(histogram.value);
    this.facets = facets.status === 'fulfilled' ? facets.value : this.facets;
    this.facetError = facets.status === 'fulfilled' ? null : facets.reason;
    this.app.update();
  }

  /** Keeps histogram and facets current while the range ends now. */
  refresh() {
    if (document.hidden || this.state.to || this.loading || this.error || this.histogram.range) return;
    this.loadOverview(this.abort.signal);
    if (this.traces?.length === 0) this.load();
  }

  async more() {
    const { signal } = this.abort;
    const { next } = this;
    this.loading = true;
    this.app.update();
    try {
      const parameters = { ...this.parameters(), sort: this.state.sort, limit: PAGE, cursor: next };
      const page = await get('traces', parameters, signal);
      if (signal.aborted) return;
      this.traces = [...this.traces, ...page.traces];
      this.next = page.next;
    } catch (error) {
      if (error.name !== 'AbortError') this.error = error;
    }
    this.loading = false;
    this.app.update();
  }

  restartTail() {
    this.endTail?.();
    this.endTail = null;
    this.liveState = '';
    if (!this.state.live) return;
    this.endTail = tail(
      queryOf(this.state),
      (traces, lost) => this.arrived(traces, lost),
      (text) => {
        this.liveState = text;
        this.app.update();
      },
    );
  }

  arrived(traces, lost) {
    this.lost += lost;
    const known = new Map([...traces].reverse().map((trace) => [`${trace.index} ${trace.key}`, trace]));
    // A trace that is merged comes again: the row changes in its place.
    for (const list of [this.fresh, this.traces ?? []]) {
      list.forEach((row, place) => {
        const id = `${row.index} ${row.key}`;
        if (known.has(id)) {
          list[place] = known.get(id);
          known.delete(id);
        }
      });
    }
    this.fresh = [...known.values(), ...this.fresh].slice(0, MAX_ROWS);
    this.takeFreshIfAtTop();
    this.app.update();
  }

  takeFreshIfAtTop() {
    const focused = document.activeElement?.matches?.('a.row');
    if (this.fresh.length > 0 && window.scrollY < NEAR_TOP_PX && !focused) this.takeFresh();
  }

  takeFresh() {
    this.traces = [...this.fresh, ...(this.traces ?? [])].slice(0, MAX_ROWS);
    this.fresh = [];
    this.app.update();
  }

  zoom(from, to) {
    this.ranges.push({ from: this.state.from, to: this.state.to });
    this.change({ from: String(Math.floor(from)), to: String(Math.ceil(to)), live: false });
  }

  zoomOut() {
    this.change(this.ranges.pop() ?? { from: DEFAULT_RANGE, to: '' });
  }

  typed(event) {
    clearTimeout(this.typing);
    const q = event.target.value;
    this.typing = setTimeout(() => this.change({ q }), TYPING_DELAY_MS);
  }

  submit(event) {
    event.preventDefault();
    clearTimeout(this.typing);
    this.change({ q: new FormData(event.target).get('q') });
  }

  toggle(name, value) {
    const chosen = this.state[name];
    this.change({ [name]: chosen.includes(value) ? chosen.filter((other) => other !== value) : [...chosen, value] });
  }

  facet(title, name, values) {
    const chosen = this.state[name];
    const missing = chosen.filter((value) => !values.some((known) => known.value === value));
    const all = [...values, ...missing.map((value) => ({ value, count: 0 }))];
    if (all.length === 0) return nothing;
    return html`
      <fieldset><legend>${title}</legend>
        ${all.map(({ value, count: number }) => html`<label><input type="checkbox" .checked=${chosen.includes(value)}
          @change=${() => this.toggle(name, value)}><span>${value}</span><i>${count(number)}</i></label>`)}
      </fieldset>`;
  }

  chosenFilters() {
    return this.state.levels.length + this.state.services.length + (this.state.longer ? 1 : 0);
  }

  sidebar() {
    const { facets } = this;
    const rank = ({ value }) => [...LEVELS, 'none'].indexOf(value);
    const levels = [...(facets?.levels ?? [])].sort((a, b) => rank(a) - rank(b));
    const step = Math.max(0, DURATIONS.findIndex((ms) => ms >= this.state.longer));
    const chosen = this.chosenFilters();
    return html`
      <aside id="filters" aria-label="Filters" class=${this.showsFilters ? 'open' : ''}>
        ${this.facet('Level', 'levels', levels)}
        ${this.facet('Service', 'services', facets?.services ?? [])}
        <fieldset><legend>Duration</legend>
          <input type="range" min="0" max=${DURATIONS.length - 1} .value=${String(step)} aria-label="Shortest duration"
            aria-valuetext=${this.state.longer ? `longer than ${duration(this.state.longer)}` : 'any'}
            @change=${(event) => this.change({ longer: DURATIONS[event.target.value] })}>
          <span class="dim">${this.state.longer ? `> ${duration(this.state.longer)}` : 'any'}</span>
        </fieldset>
        ${chosen ? html`<button class="plain" @click=${() => this.change({ levels: [], services: [], longer: 0 })}>Clear filters</button>` : nothing}
        ${this.facetError && !this.error ? html`<p class="dim">${this.facetError.message}</p>` : nothing}
      </aside>`;
  }

  searchForm() {
    const { q, from, to, sort, live } = this.state;
    const known = RANGES.some(([value]) => value === from) && !to;
    const chosen = this.chosenFilters();
    return html`
      <form class="search" role="search" @submit=${(event) => this.submit(event)}>
        <input type="search" name="q" .value=${q} placeholder='timeout level:>=warn service:order' spellcheck="false"
          autocomplete="off" autocapitalize="off" aria-label="Search traces" @input=${(event) => this.typed(event)}>
        <select aria-label="Time range" @change=${(event) => this.change({ from: event.target.value, to: '' })}>
          ${known ? nothing : html`<option value=${from} selected>Chosen range</option>`}
          ${RANGES.map(([value, label]) => html`<option value=${value} ?selected=${known && value === from}>${label}</option>`)}
        </select>
        <select aria-label="Order" class="hide" @change=${(event) => this.change({ sort: event.target.value })}>
          ${SORTS.map(([value, label]) => html`<option value=${value} ?selected=${value === sort}>${label}</option>`)}
        </select>
        <button type="button" class="narrow" aria-expanded=${this.showsFilters} aria-controls="filters"
          @click=${() => {
            this.showsFilters = !this.showsFilters;
            this.app.update();
          }}>Filters${chosen ? ` (${chosen})` : ''}</button>
        ${known ? nothing : html`<button type="button" @click=${() => this.zoomOut()}>Zoom out</button>`}
        <button type="button" aria-pressed=${live} @click=${() => this.change(live ? { live: false } : { live: true, to: '', from: known ? from : DEFAULT_RANGE, sort: 'newest' })}>
          ${live ? 'Live ❚❚' : 'Live ▸'}</button>
      </form>`;
  }

  results() {
    if (this.error) return problem(this.error, queryOf(this.state));
    if (!this.traces) return html`<p class="dim" role="status">Searching …</p>`;
    if (this.traces.length === 0) return this.nothingFound();
    return html`
      ${traceTable(this.traces, 'Traces')}
      ${this.next ? html`<p class="more"><button ?disabled=${this.loading} @click=${() => this.more()}>More</button></p>` : nothing}`;
  }

  nothingFound() {
    const filtered = queryOf(this.state) !== '';
    const limited = this.state.from !== '' || this.state.to !== '';
    if (filtered || (limited && this.app.stats?.now.documents > 0)) {
      return empty('No traces match', html`
        <p>${filtered ? 'Fewer words, fewer filters' : 'A longer time range'}${filtered && limited ? ' or a longer time range' : ''} may find some.</p>
        <p>${filtered ? html`<button @click=${() => this.change({ q: '', levels: [], services: [], longer: 0 })}>Clear the search</button>` : nothing}
        ${limited ? html`<button @click=${() => this.change({ from: '', to: '' })}>Search all time</button>` : nothing}</p>`);
    }
    return start(this.app.stats);
  }

  /** Floats above the list, which it does not move. */
  freshNote() {
    const { length } = this.fresh;
    if (!length) return html`<div class="float"></div>`;
    const number = length < MAX_ROWS ? plural(length, 'new trace') : `more than ${plural(length, 'new trace')}`;
    return html`<div class="float"><button class="fresh" @click=${() => {
      window.scrollTo(0, 0);
      this.takeFresh();
    }}>${number} ↑</button></div>`;
  }

  notes() {
    return html`
      ${this.lost ? html`<p class="dim">${plural(this.lost, 'trace')} came faster than this page shows them; a search finds them.</p>` : nothing}
      ${this.liveState ? html`<p class="problem" role="status">${this.liveState}</p>` : nothing}
      ${this.lag > 1000 ? html`<p class="dim">${count(this.lag)} documents are stored and not yet searchable.</p>` : nothing}`;
  }

  template() {
    return html`
      <h1 class="hidden">Traces</h1>
      <div class="columns">
        ${this.sidebar()}
        <section aria-label="Search results" aria-busy=${this.loading}>
          ${this.searchForm()}${this.error ? nothing : this.histogram.template()}${this.freshNote()}${this.results()}${this.notes()}
        </section>
      </div>`;
  }
}

export { addressOf, queryString, stateOf };
