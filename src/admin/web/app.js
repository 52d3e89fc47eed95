// The page: header, navigation and the view that belongs to the address.

import { html, nothing, render } from './vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { bytes, count, duration, percent } from './format.js';
import { handleKey, helpDialog } from './keys.js';
import { Traces } from './traces.js';
import { Trace } from './trace.js';
import { Live } from './live.js';
import { Open } from './open.js';
import { DeadLetter } from './dead_letter.js';
import { Server } from './server.js';
import { Login } from './login.js';

const STATUS_INTERVAL_MS = 5000;

const VIEWS = [
  { path: '/', title: 'Traces', view: Traces },
  { path: '/live', title: 'Live', view: Live },
  { path: '/open', title: 'Open', view: Open },
  { path: '/dead-letter', title: 'Dead letter', view: DeadLetter },
  { path: '/server', title: 'Server', view: Server },
];

class App {
  stats = null;
  statsError = '';
  view = null;
  path = '';
  scheduled = false;
  /** Where the list of traces was left, for the way back. */
  listAddress = '/';

  start() {
    window.addEventListener('popstate', () => this.show());
    window.addEventListener('windrow:login', () => this.login());
    document.addEventListener('click', (event) => this.followLink(event));
    document.addEventListener('keydown', (event) => handleKey(this, event));
    this.forgetToken();
    this.show();
    this.refreshStats();
  }

  /** A token in an old bookmark does not stay in the address, from where it would be copied. */
  forgetToken() {
    const address = new URL(location.href);
    if (!address.searchParams.has('token')) return;
    address.searchParams.delete('token');
    history.replaceState(null, '', address);
  }

  /** Follows links within the page without loading it again. */
  followLink(event) {
    const link = event.target.closest?.('a[href]');
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || link.target || link.hasAttribute('download')) return;
    const url = new URL(link.href);
    if (url.origin !== location.origin || !viewOf(url.pathname)) return;
    event.preventDefault();
    this.go(url.pathname + url.search);
  }

  /** Goes to an address of the page. */
  go(address, { replace = false } = {}) {
    if (replace) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
    this.show();
  }

  /** Changes the query of the address without leaving the view. */
  setQuery(parameters) {
    const address = location.pathname + parameters;
    if (address !== location.pathname + location.search) history.pushState(null, '', address);
  }

  show() {
    const path = location.pathname;
    if (path === '/') this.listAddress = path + location.search;
    if (this.view && this.path === path) {
      this.view.addressChanged?.();
      this.update();
      return;
    }
    this.view?.stop?.();
    this.path = path;
    const known = viewOf(path) ?? VIEWS[0];
    this.view = new known.view(this);
    document.title = `${known.title} · Windrow`;
    this.view.start?.();
    this.update();
    window.scrollTo(0, 0);
    document.querySelector('main')?.focus({ preventScroll: true });
  }

  login() {
    if (this.view instanceof Login) return;
    this.view?.stop?.();
    this.path = '';
    this.view = new Login(this);
    document.title = 'Log in · Windrow';
    this.update();
  }

  async refreshStats() {
    if (!document.hidden && !(this.view instanceof Login)) await this.loadStats();
    setTimeout(() => this.refreshStats(), STATUS_INTERVAL_MS);
  }

  async loadStats() {
    try {
      this.stats = await get('stats', this.view?.statsParameters);
      this.statsError = '';
    } catch (error) {
      this.statsError = error.message;
    }
    this.update();
  }

  /** Renders before the next frame. */
  update() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      render(this.template(), document.body);
      this.view?.rendered?.();
    });
  }

  template() {
    const login = this.view instanceof Login;
    return html`
      <a class="skip" href="#main">Skip to content</a>
      <header>
        <a class="brand" href="/">Windrow</a>
        ${login ? nothing : html`<nav aria-label="Views">${VIEWS.map((view) => this.navigationLink(view))}</nav>`}
        ${login ? nothing : this.status()}
      </header>
      <main id="main" tabindex="-1">${this.view.template()}</main>
      ${helpDialog()}`;
  }

  navigationLink({ path, title }) {
    const current = path === this.path || (path === '/' && this.path.startsWith('/trace/'));
    const open = path === '/open' && this.stats ? html` <span class="dim">${count(this.stats.open.traces)}</span>` : nothing;
    return html`<a href=${path === '/' ? this.listAddress : path} class=${current ? 'on' : ''}
      aria-current=${current ? 'page' : 'false'}>${title}${open}</a>`;
  }

  status() {
    if (this.statsError) {
      return html`<span class="state" role="status"><span class="dot bad"></span>${this.statsError}</span>`;
    }
    if (!this.stats) return html`<span class="state" role="status"></span>`;
    const { readiness, now, journal } = this.stats;
    const ack = now.ackLatencyMs == null ? '' : ` · ack ${now.ackLatencyMs.toFixed(1)} ms`;
    const numbers = `${count(now.recordsPerSecond)} records/s${ack} · journal ${percent(journal.bytes, journal.limitBytes)}`;
    const title = readiness.ready ? 'The server is ready' : readiness.reasons.join('\n');
    return html`<a class="state" href="/server" title=${title}>
      <span class="dot ${readiness.ready ? '' : 'bad'}"></span>${readiness.ready ? 'ready' : 'not ready'}<span
        class="hide"> · ${numbers}</span></a>`;
  }
}

function viewOf(path) {
  if (path.startsWith('/trace/')) return { title: 'Trace', view: Trace };
  return VIEWS.find((view) => view.path === path);
}

const app = new App();
// For tests and for curious people.
window.windrow = { app, bytes, duration };
document.querySelector('noscript')?.remove();
app.start();
