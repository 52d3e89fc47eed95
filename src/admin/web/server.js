// The Server view: health, charts of the last hour and every number of the pipeline.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { bytes, count, duration, percent, plural } from './format.js';
import { Chart } from './chart.js';

const CHARTS = [
  { title: 'Records', unit: '/s', series: ['recordsPerSecond'], labels: ['records'] },
  { title: 'Acknowledgement', unit: 'ms', series: ['ackLatencyMs', 'ackLatencyP99Ms'], labels: ['median', 'p99'] },
  { title: 'Documents', unit: '/s', series: ['documentsPerSecond'], labels: ['documents'] },
  { title: 'Journal', unit: 'bytes', series: ['journalBytes'], labels: ['on disk'] },
  { title: 'Memory', unit: 'bytes', series: ['memoryBytes'], labels: ['budget in use'] },
  { title: 'Errors', unit: '/s', series: ['errorsPerSecond'], labels: ['errors'] },
];

export class Server {
  /** With the series of the charts. */
  statsParameters = { series: 1 };

  constructor(app) {
    this.app = app;
    this.charts = CHARTS.map((definition) => new Chart(definition));
  }

  start() {
    this.app.loadStats();
  }

  stop() {
    for (const chart of this.charts) chart.destroy();
  }

  rendered() {
    if (!this.app.stats?.series) return;
    for (const chart of this.charts) chart.draw(this.app.stats.series);
  }

  health({ readiness }) {
    return html`
      <section class="panel health" aria-label="Health">
        <p><span class="dot ${readiness.ready ? '' : 'bad'}"></span>${readiness.ready ? 'Ready' : 'Not ready'}</p>
        ${readiness.reasons.map((reason) => html`<p class="problem">${reason}</p>`)}
        ${readiness.notes.map((note) => html`<p class="note">${note}</p>`)}
      </section>`;
  }

  table(title, rows) {
    return html`
      <section><h2>${title}</h2>
        <table aria-label=${title}><tbody>${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td class="wide">${value}</td></tr>`)}</tbody></table>
      </section>`;
  }

  /** What the other instances take, and what stayed here because of them. */
  peers({ cluster }) {
    if (!cluster) return nothing;
    const states = { ready: 'takes records', slow: 'slow', away: 'away', no_member: 'answers, takes nothing: set cluster.peers there' };
    const kept = (of) => Object.entries(of).map(([why, number]) => `${count(number)} ${why.replaceAll('_', ' ')}`).join(', ') || 'none';
    return html`
      <section class="peers"><h2>Other instances</h2>
        <table aria-label="Other instances">
          <thead><tr><th scope="col">Address</th><th scope="col">State</th><th scope="col">Since</th><th scope="col">Records handed over</th><th scope="col">Shares kept because of it</th></tr></thead>
          <tbody>${cluster.peers.map((peer) => html`<tr>
            <th scope="row">${peer.address}${peer.name ? html` <span class="dim">${peer.name}</span>` : nothing}</th>
            <td class="wide"><span class="dot ${peer.state === 'ready' ? '' : 'bad'}"></span>${states[peer.state] ?? peer.state}${peer.reason ? `: ${peer.reason}` : ''}</td>
            <td>${duration(peer.seconds * 1000)}</td>
            <td>${count(peer.recordsHandedOver)}</td>
            <td>${kept(peer.kept)}</td></tr>`)}
          </tbody>
        </table>
        <p class="dim">In all ${count(cluster.recordsHandedOver)} records handed over, ${count(cluster.messagesTaken)} messages taken, ${count(cluster.kept)} shares and chunks kept.</p>
      </section>`;
  }

  tables(stats) {
    const { input, open, journal, memory, rejected, deadLetter, audit, index } = stats;
    const errors = (of) => Object.entries(of).map(([why, number]) => `${count(number)} ${why}`).join(', ') || 'none';
    const refusedBy = Object.entries(deadLetter.bySource).filter(([, number]) => number > 0);
    const sources = refusedBy.length ? ` (${refusedBy.map(([name, number]) => `${count(number)} from ${name}`).join(', ')})` : '';
    return html`<div class="tables">
      ${this.table('Intake', [
        ['Connections', `${count(input.connectionsOpen)} open, ${count(input.connectionsTotal)} so far`],
        ['Records', `${count(input.records)} received, ${count(input.recordsDuplicate)} of them repeated`],
        ['Chunks', `${count(input.chunksAcked)} acknowledged`],
        ['Bad input', `${count(input.rejected)} rejected, ${count(input.violations)} connections closed`],
      ])}
      ${this.table('Gathering', [
        ['Open', `${count(open.traces)} traces, ${bytes(open.bytes)}; ${count(open.recordsUnconfirmed)} records not yet confirmed`],
        ['Sealed', `${count(open.sealed)} parts, ${count(open.recordsLate)} late records`],
        ['Memory budget', `${bytes(memory.usedBytes)} of ${bytes(memory.limitBytes)} (${percent(memory.usedBytes, memory.limitBytes)})`],
        ['Audit difference', count(audit.difference)],
      ])}
      ${this.table('Journal', [
        ['On disk', `${bytes(journal.bytes)} of ${bytes(journal.limitBytes)} in ${count(journal.segments)} segments`],
        ['Intake', journal.blocked ? 'stopped: the journal is full, sockets are not read' : 'open'],
      ])}
      ${stats.outputs.map((output) => this.table(`Output ${output.name}`, [
        ['Documents', `${count(output.created)} created, ${count(output.merged)} merged, ${count(output.unchanged)} unchanged, ${count(output.rejected)} rejected`],
        ['Requests in flight', count(output.inFlight)],
        ['Errors', errors(output.errors)],
      ]))}
      ${this.table('Set aside', [
        ['Dead letter', `${plural(deadLetter.documents, 'document')}${sources}; ${bytes(deadLetter.bytes)}`],
        ['Rejected input', `${count(rejected.entries)} entries, ${count(rejected.overwritten)} of them overwritten; ${bytes(rejected.bytes)}`],
      ])}
      ${index ? this.table('Search index', [
        ['Documents', `${count(index.indexed)} indexed since the start, ${count(index.lag)} not yet searchable`],
        ['Size', `${bytes(index.bytes)}; made again ${count(index.rebuilds)} times`],
      ]) : nothing}
    </div>`;
  }

  template() {
    const { stats } = this.app;
    if (!stats) return html`<div class="page"><h1>Server</h1><p class="dim">${this.app.statsError || 'Loading …'}</p></div>`;
    return html`
      <div class="page">
        <div class="head"><h1>Server</h1><span class="dim">Windrow ${stats.version} · up ${duration(stats.uptimeSeconds * 1000)}</span></div>
        ${this.health(stats)}
        <div class="charts">${this.charts.map((chart) => chart.template())}</div>
        ${this.peers(stats)}
        ${this.tables(stats)}
        <p class="dim">The same numbers for Prometheus: <a href="/metrics" target="_blank">/metrics</a>. The API:
          <a href="/api/v1/openapi.json" target="_blank">/api/v1/openapi.json</a>.</p>
      </div>`;
  }
}
