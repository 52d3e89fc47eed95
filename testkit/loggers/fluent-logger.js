// Sends the records of a JSON array on stdin with npm's fluent-logger: HOST PORT TAG MODE.
const logger = require('fluent-logger');
const [host, port, tag, eventMode] = process.argv.slice(2);
const records = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const sender = logger.createFluentSender(tag, {
  host, port: Number(port), eventMode, requireAckResponse: true, ackResponseTimeout: 20000, milliseconds: true,
});
const fail = (error) => { console.error(String(error)); process.exit(1); };
sender.on('error', fail);
let left = records.length;
for (const { _time, ...record } of records) {
  sender.emit(record, new Date(_time ?? Date.now()), (error) => {
    if (error) fail(error);
    left -= 1;
    if (left === 0) sender.end(null, null, () => process.exit(0));
  });
}
