// Sends the records of a JSON array on stdin with npm's fluent-logger: HOST PORT TAG OPTIONS.
const logger = require('fluent-logger');
const [host, port, tag, options] = process.argv.slice(2);
const records = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const sender = logger.createFluentSender(tag, { host, port: Number(port), ...JSON.parse(options) });
const fail = (error) => { console.error(String(error)); process.exit(1); };
sender.on('error', fail);
const at = (time) => Number.isInteger(time) ? time : logger.EventTime.fromTimestamp(Math.round(time * 1000));
let left = records.length;
for (const { _time, ...record } of records) {
  sender.emit(record, at(_time ?? Date.now() / 1000), (error) => {
    if (error) fail(error);
    left -= 1;
    if (left === 0) sender.end(null, null, () => process.exit(0));
  });
}
