// The desktop's page: noVNC with a bar, a clipboard, and a connection that comes back by itself.
// Everything it loads lies beside it; the websocket belongs to visahub's extension of the Jupyter server.

const find = (id) => document.getElementById(id);
const WAITS = [1, 2, 4, 8, 15, 30]; // seconds between tries
const SLEPT = 20_000; // ms without a tick: the computer slept, and the connection only looks alive
const MAX_TEXT = 250_000; // characters of one clipboard text that surely fit the display server's limit
const NO_DESKTOP = 4002; // close codes of visahub, with a sentence as their reason
const TOO_MANY = 4003;
const MODIFIERS = [[0xffe3, 'ControlLeft'], [0xffe9, 'AltLeft'], [0xffe1, 'ShiftLeft']];

const version = document.body.dataset.novnc;
const follows = document.body.dataset.followsWindow === 'yes';
let RFB = null;
let rfb = null;
let tries = 0;
let timer = null; // the countdown to the next try
let ended = null; // why the last connection ended, in the words of the other side
let lastTick = Date.now();
let lastText = '';

function say(kind, words) {
  find('dot').className = `dot ${kind}`;
  find('state').textContent = words;
}

function notice({ kind = 'wait', title, text = '', again = false, start = false, home = false }) {
  const dot = find('notice-dot');
  dot.className = `dot ${kind}${kind === 'wait' ? ' moving' : ''}`;
  find('notice-title').textContent = title;
  find('notice-text').textContent = text;
  find('notice-count').textContent = '';
  find('notice-again').hidden = !again;
  find('notice-start').hidden = !start;
  find('notice-home').hidden = !(home && find('notice-home').getAttribute('href'));
  find('notice').hidden = false;
}

// --- connection ---

function socketAddress() {
  const address = new URL('../visahub/desktop/socket', document.baseURI);
  address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
  return address.href;
}

async function connect() {
  clearInterval(timer);
  timer = null;
  if (rfb) return;
  notice({ title: 'Connecting…' });
  say('wait', 'Connecting…');
  const asked = await ask();
  if (asked.notice) {
    lost(asked);
    return;
  }
  find('keyboard').value = asked.keyboard;
  // After its end the desktop says so, since the programs in it have gone.
  notice({ title: 'Connecting…', text: asked.sentence });
  if (rfb) return;
  const socket = new WebSocket(socketAddress());
  ended = null;
  // noVNC keeps the reason to itself.
  socket.addEventListener('close', (event) => { ended = event; });
  rfb = new RFB(find('screen'), socket, { shared: true });
  rfb.resizeSession = follows;
  rfb.scaleViewport = true;
  rfb.focusOnClick = true;
  rfb.showDotCursor = true;
  rfb.qualityLevel = 8;
  rfb.compressionLevel = 2;
  rfb.background = 'transparent';
  rfb.addEventListener('connect', connected);
  rfb.addEventListener('disconnect', disconnected);
  rfb.addEventListener('clipboard', (event) => received(event.detail.text));
}

function connected() {
  tries = 0;
  find('notice').hidden = true;
  say('ok', 'Connected');
  if (!isTyping()) rfb.focus();
}

function disconnected() {
  rfb = null;
  if (ended?.code === TOO_MANY) lost({ stays: true, notice: { kind: 'bad', title: 'Open too often', text: ended.reason, again: true } });
  else if (ended?.code === NO_DESKTOP) lost({ notice: { text: ended.reason } });
  else lost({});
}

// Asks the daemon how the desktop is. The answer, or that none comes, decides what the user reads.
async function ask() {
  let response;
  try {
    response = await fetch('status', { cache: 'no-store', redirect: 'manual', signal: AbortSignal.timeout(20_000) });
  } catch {
    return { notice: { title: 'Connection lost', text: 'The network or the facility’s server does not answer. Your programs are not affected.' } };
  }
  if (response.type === 'opaqueredirect' || response.status === 401 || response.status === 403) {
    return { notice: { kind: 'bad', title: 'You are logged out', text: 'Your login has expired. Reload this page to log in again; your programs go on running.' } };
  }
  if ([404, 424, 503].includes(response.status)) {
    return { notice: { kind: 'bad', title: 'This instance does not answer', text: 'It was stopped or is just restarting. If you stopped it, start it again from My instances; your files are kept.', home: true } };
  }
  if (!response.ok) {
    return { notice: { title: 'The desktop does not answer', text: 'It could not be started in time. It is tried again.' } };
  }
  const status = await response.json();
  if (status.state === 'failed') {
    return { stays: true, notice: { kind: 'bad', title: 'The desktop is not running', text: status.sentence, start: true } };
  }
  return status;
}

function lost({ notice: shown = null, stays = false }) {
  say('bad', 'Not connected');
  notice({ title: 'Connection lost', text: 'The desktop comes back here by itself.', again: !stays, ...shown });
  if (stays) return;
  const seconds = WAITS[Math.min(tries, WAITS.length - 1)];
  tries += 1;
  countDown(seconds);
}

function countDown(seconds) {
  let left = seconds;
  const show = () => { find('notice-count').textContent = `Next try in ${left} s.`; };
  show();
  clearInterval(timer);
  timer = setInterval(() => {
    left -= 1;
    if (left > 0) show();
    else connect();
  }, 1000);
}

function reconnectNow() {
  tries = 0;
  if (rfb) {
    // What only looks alive ends first; `disconnected` follows, and then the next try.
    rfb.disconnect();
    return;
  }
  connect();
}

function tick() {
  const slept = Date.now() - lastTick > SLEPT;
  lastTick = Date.now();
  if (slept) reconnectNow();
}

async function startAgain() {
  await post('start', {});
  tries = 0;
  connect();
}

function post(path, body) {
  return fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Visahub': '1' }, body: JSON.stringify(body) });
}

// --- clipboard ---

function received(text) {
  lastText = text;
  find('clipboard-text').value = text;
  // Browsers allow this to a page in use; where not, the panel has the text.
  if (document.hasFocus()) navigator.clipboard?.writeText(text).catch(() => {});
}

function sendText(text) {
  if (text.length > MAX_TEXT) {
    find('clipboard-said').textContent = `Only ${MAX_TEXT} characters fit. Use a file for longer texts.`;
    return false;
  }
  if (!rfb) {
    find('clipboard-said').textContent = 'The desktop is not connected. Try again in a moment.';
    return false;
  }
  lastText = text;
  rfb.clipboardPasteFrom(text);
  return true;
}

async function mayRead() {
  try {
    return (await navigator.permissions.query({ name: 'clipboard-read' })).state;
  } catch {
    return 'denied'; // Firefox and Safari ask at each reading: the panel serves there
  }
}

async function bringText() {
  if (!rfb || (await mayRead()) !== 'granted') return;
  try {
    const text = await navigator.clipboard.readText();
    if (text && text !== lastText && sendText(text)) find('clipboard-text').value = text;
  } catch { /* not in focus, or no text */ }
}

async function copyText() {
  const area = find('clipboard-text');
  try {
    await navigator.clipboard.writeText(area.value);
    find('clipboard-said').textContent = 'Copied to your computer.';
  } catch {
    area.select();
    find('clipboard-said').textContent = 'Your browser does not allow it. The text is selected: press Ctrl+C.';
  }
}

async function allowAuto() {
  try {
    await navigator.clipboard.readText(); // makes the browser ask once
    find('clipboard-said').textContent = 'From now on both clipboards are the same.';
    find('clipboard-auto').hidden = true;
    bringText();
  } catch {
    find('clipboard-said').textContent = 'Your browser does not allow it. Use the text field.';
  }
}

async function togglePanel(open = find('clipboard-panel').hidden) {
  find('clipboard-panel').hidden = !open;
  find('clipboard').setAttribute('aria-expanded', String(open));
  find('clipboard-said').textContent = '';
  if (open) {
    find('clipboard-auto').hidden = (await mayRead()) !== 'prompt';
    find('clipboard-text').focus();
  } else {
    rfb?.focus();
  }
}

// --- the bar ---

function isTyping() {
  return document.activeElement?.closest?.('.panel, .bar') != null;
}

function fold(hide) {
  find('bar').hidden = hide;
  find('unfold').hidden = !hide;
  if (hide) togglePanel(false);
  try { localStorage.setItem('visahub-desktop-bar', hide ? 'hidden' : 'shown'); } catch { /* private window */ }
}

// The desktop takes every key; this one leads out of it, for those who use no mouse.
function leaveByKey(event) {
  if (!(event.ctrlKey && event.altKey && event.shiftKey && event.code === 'KeyM')) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  // The desktop will not see these keys being released.
  for (const [sym, code] of MODIFIERS) rfb?.sendKey(sym, code, false);
  fold(false);
  find('keyboard').focus();
}

async function chooseKeyboard() {
  const response = await post('keyboard', { layout: find('keyboard').value }).catch(() => null);
  const body = response ? await response.json().catch(() => ({})) : {};
  if (response?.ok) {
    say('ok', `Keyboard: ${find('keyboard').selectedOptions[0].textContent}`);
    setTimeout(() => { if (rfb) say('ok', 'Connected'); }, 4000);
    rfb?.focus();
  } else {
    say('bad', body.sentence || 'The keyboard layout could not be changed. Try again.');
  }
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (document.fullscreenEnabled) document.documentElement.requestFullscreen({ navigationUI: 'hide' }).then(() => rfb?.focus());
  else window.open(location.href, '_blank', 'noopener'); // a tab of JupyterLab may not become full screen
}

function begin() {
  for (const [id, act] of [['clipboard', () => togglePanel()], ['clipboard-copy', copyText], ['clipboard-auto', allowAuto],
    ['keys', () => { rfb?.sendCtrlAltDel(); rfb?.focus(); }], ['full', toggleFull], ['fold', () => { fold(true); rfb?.focus(); }],
    ['unfold', () => { fold(false); find('fold').focus(); }], ['notice-again', reconnectNow], ['notice-start', startAgain]]) {
    find(id).addEventListener('click', act);
  }
  find('clipboard-send').addEventListener('click', () => {
    if (sendText(find('clipboard-text').value)) find('clipboard-said').textContent = 'Sent. Paste it in the desktop.';
  });
  find('clipboard-panel').addEventListener('keydown', (event) => { if (event.key === 'Escape') togglePanel(false); });
  find('keyboard').addEventListener('change', chooseKeyboard);
  find('screen').addEventListener('mouseenter', bringText);
  window.addEventListener('focus', bringText);
  window.addEventListener('keydown', leaveByKey, true);
  window.addEventListener('online', reconnectNow);
  window.addEventListener('pageshow', tick);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState !== 'visible') return;
    tick();
    if (!rfb && timer) reconnectNow();
  });
  setInterval(tick, 5000);
  if (!document.fullscreenEnabled) {
    find('full-text').textContent = 'Own window';
    find('full').setAttribute('aria-label', 'Own window');
  }
  let folded = false;
  try { folded = localStorage.getItem('visahub-desktop-bar') === 'hidden'; } catch { /* private window */ }
  fold(folded);
}

begin();
if (version) {
  ({ default: RFB } = await import(new URL(`novnc/${version}/core/rfb.js`, document.baseURI)));
  await connect();
} else {
  notice({ kind: 'bad', title: 'The desktop’s viewer is missing',
    text: 'noVNC is not installed beside visahub. Ask the administrator to run “npm ci” in its share directory and reload this page.' });
}
