// A chart of the last hour, drawn by uPlot, which is loaded when the first chart is shown.

import { html } from './vendor/lit-html/lit-html.js';
import { bytes, count, shortTime } from './format.js';

const HEIGHT = 150;
/** Room above the highest value. */
const HEADROOM = 1.08;
/** Distances of ticks on an axis of bytes: powers of two. */
const BYTE_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement('link');
    style.rel = 'stylesheet';
    style.href = '/assets/vendor/uplot/uPlot.min.css';
    const script = document.createElement('script');
    script.src = '/assets/vendor/uplot/uPlot.iife.min.js';
    script.onload = () => resolve(window.uPlot);
    script.onerror = reject;
    document.head.append(style, script);
  });
  return loading;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  plot = null;
  width = 0;
  drawing = false;

  constructor(definition) {
    this.definition = definition;
    this.id = `chart-${definition.series[0]}`;
  }

  show(value) {
    if (value == null) return '–';
    if (this.definition.unit === 'bytes') return bytes(value);
    if (this.definition.unit === 'ms') return `${value.toFixed(1)} ms`;
    return `${value < 10 ? Number(value.toFixed(1)) : count(value)}${this.definition.unit}`;
  }

  /** A value as a label of the axis, without digits that say nothing. */
  tick(value) {
    if (this.definition.unit === 'bytes') return bytes(value).replace('.0 ', ' ');
    return `${Number(value.toPrecision(3)).toLocaleString('en')}${this.definition.unit === 'ms' ? ' ms' : this.definition.unit}`;
  }

  async draw(series) {
    const place = document.querySelector(`#${this.id}`);
    if (!place || this.drawing) return;
    this.drawing = true;
    const uPlot = await load().catch(() => null);
    this.drawing = false;
    if (!uPlot || !place.isConnected) return;
    const data = [series.time, ...this.definition.series.map((name) => series[name] ?? [])];
    const width = place.clientWidth;
    const scheme = color('--ink');
    if (this.plot && (this.place !== place || this.scheme !== scheme)) this.destroy();
    if (!this.plot) {
      this.place = place;
      this.scheme = scheme;
      this.plot = new uPlot(this.options(width), data, place);
    } else {
      if (width !== this.width) this.plot.setSize({ width, height: HEIGHT });
      this.plot.setData(data);
    }
    // The newest values, until the pointer asks for others.
    if (this.plot.cursor.idx == null) this.plot.setLegend({ idx: data[0].length - 1 });
    this.width = width;
    const last = this.definition.series.map((name) => series[name]?.at(-1));
    place.setAttribute('aria-label', `${this.definition.title} of the last hour; now ${last.map((value) => this.show(value)).join(', ')}`);
  }

  options(width) {
    const axis = { stroke: color('--dim'), grid: { stroke: color('--line'), width: 1 }, ticks: { show: false } };
    const strokes = [color('--accent'), color('--warn')];
    return {
      width,
      height: HEIGHT,
      cursor: { y: false },
      legend: { live: true },
      hooks: {
        setCursor: [(plot) => plot.cursor.idx == null && plot.setLegend({ idx: plot.data[0].length - 1 })],
      },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max((high ?? 1) * HEADROOM, 1)] } },
      axes: [
        { ...axis, size: 30, space: 70, values: (_, values) => values.map(shortTime) },
        {
          ...axis,
          size: 74,
          incrs: this.definition.unit === 'bytes' ? BYTE_STEPS : undefined,
          values: (_, values) => values.map((value) => this.tick(value)),
        },
      ],
      series: [
        { label: 'at', value: (_, value) => (value == null ? '–' : shortTime(value)) },
        ...this.definition.labels.map((label, number) => ({
          label,
          stroke: strokes[number],
          width: 1.5,
          points: { show: false },
          value: (_, value) => this.show(value),
        })),
      ],
    };
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
  }

  template() {
    return html`<section class="panel chart"><h2>${this.definition.title}</h2><div id=${this.id} role="img"></div></section>`;
  }
}
