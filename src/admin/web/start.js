// What to do when there are no traces yet: how to send the first ones.

import { html } from './vendor/lit-html/lit-html.js';
import { empty } from './parts.js';

/** The address at which programs reach the Forward port. */
function forwardAddress(stats) {
  const listen = stats?.listen?.forward ?? ':24224';
  const port = listen.slice(listen.lastIndexOf(':') + 1);
  return { host: location.hostname, port };
}

export function start(stats) {
  const { host, port } = forwardAddress(stats);
  return empty('No traces yet', html`
    <p>Send a first record from a shell:</p>
    <pre><code>echo '["app", 0, {"traceId":"abc","message":"request completed","level":"info"}]' \\
  > /dev/tcp/${host}/${port}</code></pre>
    <p>Or let Fluent Bit forward what it tails:</p>
    <pre><code>[OUTPUT]
    Name                  forward
    Match                 *
    Host                  ${host}
    Port                  ${port}
    Require_ack_response  true
    Retry_Limit           no_limits</code></pre>
    <p class="dim">Traces that are still being gathered are in <a href="/open">Open</a>. What was received and could not be
      used is counted under <a href="/server">Server</a>.</p>`);
}
