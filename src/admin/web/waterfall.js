// Waterfall of a trace: a lane per service, a mark per line at its time.

import { html, svg } from './vendor/lit-html/lit-html.js';
import { duration } from './format.js';

const LANE_HEIGHT = 34;
const LABEL_WIDTH = 130;
const RIGHT_MARGIN = 24;
const AXIS_HEIGHT = 26;
/** Further services share the last lane. */
const MAX_LANES = 24;
const MAX_LABEL_CHARACTERS = 18;
const TICK_DISTANCE_PX = 110;
/** Marks drawn; a trace with more lines shows every n-th of its ordinary ones. */
const MAX_MARKS = 2000;
const STEPS = [1, 2, 5];

/** A round distance of ticks for a span. */
function tickStep(span, ticks) {
  const least = Math.max(span / Math.max(1, ticks), 0.001);
  const power = 10 ** Math.floor(Math.log10(least));
  return power * (STEPS.find((step) => step * power >= least) ?? 10);
}

const shorten = (text) => (text.length > MAX_LABEL_CHARACTERS ? `${text.slice(0, MAX_LABEL_CHARACTERS - 1)}…` : text);

/** Lines by lane, in the order in which services appear. */
function lanesOf(lines) {
  const lanes = new Map();
  for (const line of lines) {
    const name = line.service ?? '';
    const key = lanes.has(name) || lanes.size < MAX_LANES - 1 ? name : 'other services';
    if (!lanes.has(key)) lanes.set(key, []);
    lanes.get(key).push(line);
  }
  return [...lanes];
}

/** Lines that get a mark: all warnings and errors, and of the rest as many as there is room for. */
function marksOf(lines) {
  const every = Math.ceil(lines.length / MAX_MARKS);
  const important = (line) => ['warn', 'error', 'fatal'].includes(line.level) || line.late;
  return lines.filter((line, number) => every === 1 || number % every === 0 || important(line)).slice(0, 2 * MAX_MARKS);
}

/** The waterfall; `onChoose(number)` with the number of a line. `width` in pixels. */
export function waterfall(lines, width, chosen, onChoose) {
  const last = lines.reduce((most, line) => Math.max(most, line.offsetMs), 0);
  const first = lines.reduce((least, line) => Math.min(least, line.offsetMs), 0);
  const span = Math.max(last - first, 0.001);
  const room = Math.max(60, width - LABEL_WIDTH - RIGHT_MARGIN);
  const x = (offset) => LABEL_WIDTH + ((offset - first) / span) * room;
  const lanes = lanesOf(lines);
  const height = lanes.length * LANE_HEIGHT + AXIS_HEIGHT;
  const step = tickStep(span, Math.max(2, Math.floor(room / TICK_DISTANCE_PX)));
  const ticks = [];
  for (let at = Math.ceil(first / step) * step; at <= last + 1e-9; at += step) ticks.push(at);
  const label = `Waterfall: ${lines.length} lines of ${lanes.length} services over ${duration(span)}. The list below has the same lines.`;
  return html`
    <svg class="waterfall" width=${width} height=${height} viewBox="0 0 ${width} ${height}" role="img" aria-label=${label}>
      ${ticks.map((at) => svg`<line class="tick" x1=${x(at)} x2=${x(at)} y1="0" y2=${height - AXIS_HEIGHT + 4}></line>
        <text class="axis" x=${x(at)} y=${height - 8} text-anchor="middle">${duration(at)}</text>`)}
      ${lanes.map(([name, its], lane) => laneOf(name, its, lane, x, width - RIGHT_MARGIN))}
      ${lanes.map(([, its], lane) => marksOf(its).map((line) => mark(line, lane, x, chosen, onChoose)))}
    </svg>`;
}

const middle = (lane) => lane * LANE_HEIGHT + LANE_HEIGHT / 2;

function laneOf(name, lines, lane, x, end) {
  const offsets = lines.map((line) => line.offsetMs);
  const from = x(offsets.reduce((a, b) => Math.min(a, b)));
  const to = x(offsets.reduce((a, b) => Math.max(a, b)));
  const y = middle(lane);
  return svg`
    <text class="lane" x="8" y=${y + 4}><title>${name || 'no service'}</title>${shorten(name || '–')}</text>
    <line class="rail" x1=${LABEL_WIDTH} x2=${end} y1=${y} y2=${y}></line>
    <rect class="span" x=${from - 4} y=${y - 8} width=${Math.max(8, to - from + 8)} height="16" rx="5"></rect>`;
}

function mark(line, lane, x, chosen, onChoose) {
  const at = x(line.offsetMs);
  const name = line.level ?? 'none';
  const title = `+${duration(line.offsetMs)} ${line.level ?? ''} ${line.text}`.slice(0, 300);
  return svg`<circle class="mark ${name} ${line.late ? 'late' : ''} ${line.number === chosen ? 'chosen' : ''}"
    cx=${at} cy=${middle(lane)} r=${line.number === chosen ? 7 : 5} @click=${() => onChoose(line.number)}><title>${title}</title></circle>`;
}
