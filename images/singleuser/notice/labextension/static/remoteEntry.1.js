// JupyterLab loads this file as it loads what webpack makes of an extension ("module federation"):
// a container with `init` and `get` under its name. It imports nothing, so nothing has to be built,
// and shows its messages by JupyterLab's own commands, which show text as text.
(() => {
  'use strict';
  const NOTIFY = 'apputils:notify';
  const DISMISS = 'apputils:dismiss-notification';
  const KEEP = 'gpus-notice:keep';
  // milliseconds between two questions to the user's own server
  const EVERY = 20000;

  const clock = (seconds) => {
    const at = new Date(seconds * 1000);
    const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    const today = at.toDateString() === new Date().toDateString();
    return today ? time : `${time} on ${at.toLocaleDateString()}`;
  };

  const words = (told) =>
    told.idle
      ? `This server will be stopped at ${clock(told.stop_at)} because nobody uses it and its GPUs. Files are kept.`
      : `This server will be stopped at ${clock(told.stop_at)}: it is past its length, and others wait. Save your work.`;

  const activate = (app) => {
    const settings = app.serviceManager.serverSettings;
    // what the message on the screen says, and its id
    let shown = '';
    let id = null;

    const ask = async (path, method) => {
      const headers = {};
      const xsrf = document.cookie.match('\\b_xsrf=([^;]*)\\b');
      if (xsrf) headers['X-XSRFToken'] = xsrf[1];
      if (settings.token) headers.Authorization = `token ${settings.token}`;
      const options = { method, headers, cache: 'no-store', credentials: 'same-origin' };
      const answer = await fetch(`${settings.baseUrl}gpus/${path}`, options);
      if (!answer.ok) throw new Error(`${answer.status}`);
      return answer.json();
    };

    const say = (message, type, options) =>
      app.commands.execute(NOTIFY, { message, type, options });

    const show = async (told) => {
      const text = told.stop_at === null ? '' : words(told);
      if (text === shown) return;
      const old = id;
      shown = text;
      id = null;
      if (old !== null) await app.commands.execute(DISMISS, { id: old });
      if (!text) return;
      const keep = { label: 'Keep it', caption: 'Leave this server alone for a while', commandId: KEEP };
      const actions = told.idle ? [keep] : [];
      id = await say(text, 'warning', { autoClose: false, actions });
    };

    const look = async () => {
      if (document.hidden) return;
      try {
        await show(await ask('notice', 'GET'));
      } catch (error) {
        // a server that does not answer says so itself
      }
    };

    app.commands.addCommand(KEEP, {
      label: 'Keep this server although nobody uses it',
      execute: async () => {
        let told = null;
        try {
          told = await ask('keep', 'POST');
        } catch (error) {
          // said below
        }
        if (told !== null && told.answered && told.stop_at === null) {
          await show(told);
          const until = told.kept_until === null ? '' : ` until ${clock(told.kept_until)}, used or not`;
          return say(`This server is kept${until}.`, 'success', { autoClose: 10000 });
        }
        // the button is gone with its message: show it again at the next look
        shown = '';
        return say('This server could not be kept: nobody answers. Use it, or try again.', 'error', {
          autoClose: 10000
        });
      }
    });

    app.restored.then(() => {
      if (!app.commands.hasCommand(NOTIFY)) return;
      look();
      setInterval(look, EVERY);
      document.addEventListener('visibilitychange', look);
    });
  };

  const plugin = { id: 'gpus-notice:plugin', autoStart: true, activate };
  const containers = (window._JUPYTERLAB = window._JUPYTERLAB || {});
  containers['gpus-notice'] = {
    init: () => undefined,
    get: async () => () => ({ __esModule: true, default: plugin })
  };
})();
