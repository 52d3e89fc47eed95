// The login view: asks for the admin token, which the server keeps in a cookie.

import { html, nothing } from './vendor/lit-html/lit-html.js';
import { post } from './api.js';

export class Login {
  error = '';
  busy = false;

  constructor(app) {
    this.app = app;
  }

  rendered() {
    if (!document.activeElement?.matches?.('input, button')) document.querySelector('#token')?.focus();
  }

  async submit(event) {
    event.preventDefault();
    this.busy = true;
    this.app.update();
    try {
      await post('login', { token: new FormData(event.target).get('token') });
      this.app.view = null;
      this.app.show();
    } catch (error) {
      this.error = error.message;
      this.busy = false;
      this.app.update();
    }
  }

  template() {
    return html`
      <form class="login panel" @submit=${(event) => this.submit(event)}>
        <h1>Log in</h1>
        <p class="dim">This Windrow is protected by a token (<code>admin.token</code> in its configuration).</p>
        <label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required>
        ${this.error ? html`<p class="problem" role="alert">${this.error}</p>` : nothing}
        <button class="primary" ?disabled=${this.busy}>Log in</button>
      </form>`;
  }
}
