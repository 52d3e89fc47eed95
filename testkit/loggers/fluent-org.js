// Sends the records of a JSON array on stdin with npm's @fluent-org/logger: HOST PORT TAG MODE.
const { FluentClient, EventTime } = require('@fluent-org/logger');
const [host, port, tag, eventMode] = process.argv.slice(2);
const records = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const client = new FluentClient(tag, {
  eventMode, milliseconds: true, ack: { ackTimeout: 20000 }, socket: { host, port: Number(port) },
});
(async () => {
  client.socketOn('error', (error) => { console.error(String(error)); process.exit(1); });
  await Promise.all(records.map(({ _time, ...record }) =>
    client.emit(record, EventTime.fromDate(new Date(_time ?? Date.now())))));
  await client.disconnect();
})().catch((error) => { console.error(String(error)); process.exit(1); });
