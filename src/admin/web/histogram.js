// Histogram of traces over time, stacked by level; a range is chosen by dragging or by keyboard.

import { html, nothing, svg } from './vendor/lit-html/lit-html.js';
import { LEVELS, count, full, plural, shortWhen } from './format.js';

const HEIGHT = 84;
const WIDTH = 1000;
/** Levels from the bottom of a bar to its top. */
const STACK = [...LEVELS, 'none'].reverse();
/** A drag over less than this many pixels is a click. */
const MIN_DRAG_PX = 4;

export class Histogram {
  data = null;
  /** The chosen buckets: first and last, or `null`. */
  range = null;
  cursor = null;
  dragFrom = null;

  /** `onZoom(from, to)` with Unix ms, `onZoomOut()`. */
  constructor(app, onZoom, onZoomOut) {
    Object.assign(this, { app, onZoom, onZoomOut });
  }

  set(data) {
    this.data = data;
    this.range = null;
    this.cursor = null;
  }

  bucketAt(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.data.buckets.length;
    return Math.max(0, Math.min(this.data.buckets.length - 1, Math.floor(at)));
  }

  down(event) {
    if (event.button !== 0 || !this.data?.buckets.length) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    this.dragFrom = { bucket: this.bucketAt(event), x: event.clientX };
    this.range = null;
    this.app.update();
  }

  move(event) {
    if (!this.data?.buckets.length) return;
    const bucket = this.bucketAt(event);
    if (this.dragFrom) this.range = [this.dragFrom.bucket, bucket].sort((a, b) => a - b);
    this.cursor = bucket;
    this.app.update();
  }

  up(event) {
    const from = this.dragFrom;
    this.dragFrom = null;
    if (from && Math.abs(event.clientX - from.x) >= MIN_DRAG_PX) this.zoom();
    else this.range = null;
    this.app.update();
  }

  key(event) {
    if (!this.data?.buckets.length) return;
    const last = this.data.buckets.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const next = Math.max(0, Math.min(last, (this.cursor ?? (step > 0 ? -1 : last + 1)) + step));
      const anchor = this.anchor ?? this.cursor ?? next;
      this.anchor = event.shiftKey ? anchor : next;
      this.cursor = next;
      this.range = [this.anchor, next].sort((a, b) => a - b);
    } else if (event.key === 'Enter' && this.range) {
      this.zoom();
    } else if (event.key === 'Backspace') {
      this.onZoomOut();
    } else if (event.key === 'Escape') {
      this.range = null;
    } else {
      return;
    }
    event.preventDefault();
    this.app.update();
  }

  zoom() {
    const [first, last] = this.range;
    const from = new Date(this.data.buckets[first].time).valueOf();
    const to = new Date(this.data.buckets[last].time).valueOf() + this.data.bucketMs;
    this.range = null;
    this.onZoom(from, to);
  }

  total(bucket) {
    return Object.values(bucket.counts).reduce((sum, value) => sum + value, 0);
  }

  bars() {
    const { buckets } = this.data;
    const most = Math.max(1, ...buckets.map((bucket) => this.total(bucket)));
    const step = WIDTH / buckets.length;
    return buckets.map((bucket, number) => {
      let y = HEIGHT;
      return STACK.map((level) => {
        const value = bucket.counts[level] ?? 0;
        if (!value) return nothing;
        // An error among many other traces stays visible.
        const height = Math.max(1.5, (value / most) * (HEIGHT - 6));
        y = Math.max(0, y - height);
        return svg`<rect class="bar ${level}" x=${number * step + step * 0.08} y=${y}
          width=${step * 0.84} height=${height}></rect>`;
      });
    });
  }

  selection() {
    if (!this.range) return nothing;
    const step = WIDTH / this.data.buckets.length;
    const [first, last] = this.range;
    return svg`<rect class="selection" x=${first * step} y="0" width=${(last - first + 1) * step} height=${HEIGHT}></rect>`;
  }

  caption() {
    const { buckets, bucketMs } = this.data;
    const [first, last] = this.range ?? [this.cursor, this.cursor];
    if (first == null || !buckets[first] || !buckets[last]) {
      const sum = buckets.reduce((all, bucket) => all + this.total(bucket), 0);
      return plural(sum, 'trace');
    }
    const chosen = buckets.slice(first, last + 1);
    const sum = chosen.reduce((all, bucket) => all + this.total(bucket), 0);
    const levels = LEVELS.map((level) => [level, chosen.reduce((all, bucket) => all + (bucket.counts[level] ?? 0), 0)])
      .filter(([, value]) => value > 0)
      .map(([level, value]) => `${count(value)} ${level}`);
    const end = new Date(buckets[last].time).valueOf() + bucketMs;
    return `${full(buckets[first].time)} to ${full(end)}: ${plural(sum, 'trace')}${levels.length ? ` (${levels.join(', ')})` : ''}`;
  }

  template() {
    if (!this.data) return html`<div class="hist panel"></div>`;
    return html`
      <div class="hist panel">
        <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" tabindex="0" role="group"
          aria-label="Traces over time. Arrow keys choose a range, with Shift a longer one; Enter zooms in, Backspace zooms out."
          aria-describedby="hist-caption"
          @pointerdown=${(event) => this.down(event)} @pointermove=${(event) => this.move(event)}
          @pointerup=${(event) => this.up(event)}
          @pointerleave=${() => {
            if (!this.dragFrom) this.cursor = null;
            this.app.update();
          }}
          @keydown=${(event) => this.key(event)}>${this.bars()}${this.selection()}</svg>
        <p class="dim caption"><span>${shortWhen(this.data.from)}</span>
          <span id="hist-caption" aria-live="polite">${this.caption()}</span><span>${shortWhen(this.data.to)}</span></p>
      </div>`;
  }
}
