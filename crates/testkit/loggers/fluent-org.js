// Sends the records of a JSON array on stdin with npm's @fluent-org/logger: HOST PORT TAG OPTIONS.
const { FluentClient, EventTime } = require('@fluent-org/logger');
const [host, port, tag, text] = process.argv.slice(2);
const options = JSON.parse(text);
const records = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const client = new FluentClient(tag, { ...options, socket: { host, port: Number(port), ...options.socket } });
// A Date becomes whole seconds.
const at = (time) => Number.isInteger(time) ? new Date(time * 1000) : EventTime.fromTimestamp(Math.round(time * 1000));
(async () => {
  client.socketOn('error', (error) => { console.error(String(error)); process.exit(1); });
  await Promise.all(records.map(({ _time, ...record }) => client.emit(record, at(_time ?? Date.now() / 1000))));
  await client.disconnect();
})().catch((error) => { console.error(String(error)); process.exit(1); });
