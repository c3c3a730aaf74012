/* What the portal's pages do beyond htmx: live cards and progress, the question before a deletion, small comforts.
   Every page works without this file. */
"use strict";

const xsrf = () => document.body.dataset.xsrf;
const byId = (id) => document.getElementById(id);

/* Says something to everybody: in sight when it is a notice, for screen readers only when it is news. */
function notice(html) {
  byId("vh-live").innerHTML = html;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => byId("vh-live").replaceChildren(), 10000);
}
function tell(words) {
  byId("vh-said").textContent = words;
}

/* Listens to a stream. A refused stream (closed login, too many pages) is tried again, more and more seldom. */
function listen(address, kinds, wait = 3000) {
  const source = new EventSource(`${address}?_xsrf=${encodeURIComponent(xsrf())}`);
  for (const [kind, act] of Object.entries(kinds)) {
    source.addEventListener(kind, (event) => act(JSON.parse(event.data), source));
  }
  source.addEventListener("open", () => { wait = 3000; });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED && !source.isOver) {
      setTimeout(() => listen(address, kinds, Math.min(wait * 2, 60000)), wait);
    }
  });
  window.addEventListener("pagehide", () => source.close());
  return source;
}

/* Puts new HTML in the place of an element; keeps the focus and what was opened. */
function put(old, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = template.content.firstElementChild;
  const focus = old.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...old.querySelectorAll("details[open] > summary[id]")].map((summary) => summary.id);
  old.replaceWith(fresh);
  for (const id of open) byId(id)?.parentElement.setAttribute("open", "");
  if (focus) byId(focus)?.focus({ preventScroll: true });
  enliven(fresh);
  return fresh;
}

/* My instances: each card is sent anew when it changes. */
function liveCards(box) {
  const drop = (card) => {
    if (card.contains(document.activeElement)) byId("main").focus();
    card.remove();
  };
  listen(box.dataset.vhEvents, {
    all: ({ ids }) => {
      for (const card of [...box.children]) if (!ids.includes(card.id.slice(5))) drop(card);
    },
    card: ({ id, html }) => {
      const old = byId(`card-${id}`);
      if (!html) return old && drop(old);
      if (!old) box.prepend(document.createElement("article"));
      const before = old?.dataset.vhWords;
      const fresh = put(old ?? box.firstElementChild, html);
      if (fresh.dataset.vhWords !== before && before) tell(fresh.dataset.vhWords);
    },
  });
}

/* A start: its steps are sent anew when they change; when it is ready the page goes there. */
function liveProgress(box) {
  listen(box.dataset.vhProgress, {
    progress: ({ html, words }) => {
      const wasOpen = byId("vh-log")?.open;
      const focus = box.contains(document.activeElement) ? document.activeElement.id : "";
      box.innerHTML = html;
      if (wasOpen) byId("vh-log")?.setAttribute("open", "");
      if (focus) byId(focus)?.focus({ preventScroll: true });
      enliven(box);
      tell(words);
    },
    ready: ({ address }, source) => {
      source.isOver = true;
      source.close();
      // The page of a start that is over should not be what "back" leads to.
      location.replace(address);
    },
    end: (_, source) => {
      source.isOver = true;
      source.close();
    },
  });
}

/* Clock times in the reader's zone, and the seconds of the step that lasts. */
function enliven(root) {
  const form = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  for (const time of root.querySelectorAll("time[data-vh-moment]")) time.textContent = form.format(new Date(time.dateTime));
  for (const clock of root.querySelectorAll("[data-vh-since]")) clock.begin = performance.now() - 1000 * clock.dataset.vhSince;
  if (window.htmx && root !== document) htmx.process(root);
}
setInterval(() => {
  for (const clock of document.querySelectorAll("[data-vh-since]")) {
    const seconds = (performance.now() - clock.begin) / 1000;
    clock.textContent = seconds < 100 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(0)} min`;
  }
}, 1000);

document.addEventListener("click", (event) => {
  const target = event.target.closest("a, button, summary") ?? event.target;
  /* One open menu at a time; a click elsewhere closes it. */
  for (const menu of document.querySelectorAll("details.vh-menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  if (target.matches("[data-vh-dialog]") && window.htmx) {
    event.preventDefault();
    const dialog = byId("vh-dialog");
    htmx.ajax("GET", target.href, { target: dialog, swap: "innerHTML" }).then(() => {
      if (!dialog.open && dialog.childElementCount) dialog.showModal();
    });
  } else if (target.matches("dialog [data-vh-close]")) {
    event.preventDefault();
    target.closest("dialog").close();
  } else if (target.matches("[data-vh-copy]")) {
    navigator.clipboard.writeText(byId(target.dataset.vhCopy).textContent.trim()).then(() => {
      target.textContent = "Copied";
      tell("Copied");
    });
  }
});

document.addEventListener("keydown", (event) => {
  const menu = document.querySelector("details.vh-menu[open]");
  if (event.key === "Escape" && menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
  /* Enter never starts anything: the search goes on by itself. */
  if (event.key === "Enter" && event.target.matches("form input:not([type=radio]):not([type=checkbox])") && event.target.closest("#vh-form")) {
    event.preventDefault();
  }
});

/* A form that was sent is not sent again by a second click; the server would not mind either. */
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-vh-once]") || event.submitter?.hasAttribute("formaction")) return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "1";
  event.submitter?.setAttribute("aria-busy", "true");
  if (event.submitter?.id === "vh-start") event.submitter.textContent = "Starting ...";
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

/* What htmx was refused is said in a notice; the page stays as it was. */
document.addEventListener("htmx:responseError", (event) => {
  const { xhr, elt } = event.detail;
  notice(xhr.responseText);
  /* A search that met a busy database is asked again, a few times; changes never are. */
  elt.tries = (elt.tries ?? 0) + 1;
  if (xhr.status === 503 && elt.matches("#vh-filters, form[role=search]") && elt.tries <= 3) {
    setTimeout(() => htmx.trigger(elt, "change"), 1000 * elt.tries);
  }
});
document.addEventListener("htmx:sendError", () => notice('<div class="vh-notice wait mb-0"><p>There is no connection. Nothing was changed; try again.</p></div>'));
/* What looks the same is left alone, so that nothing is replaced under a finger that is just pressing it. */
function looks(root) {
  const fields = [...root.querySelectorAll("input, button")].map((field) => `${field.value} ${field.checked} ${field.disabled}`);
  return [root.textContent.replace(/\s+/g, " ").trim(), ...fields].join("\n");
}
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  if (looks(event.detail.target) === looks(event.detail.fragment)) event.detail.shouldSwap = false;
});
/* Parts are swapped out of band and would not bring their new list to its top. */
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.requestConfig?.parameters?.part === "found") document.querySelector("#vh-found .vh-list")?.scrollTo(0, 0);
});

document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("[data-vh-noscript]")) button.classList.add("visually-hidden");
  for (const button of document.querySelectorAll("[data-vh-copy]")) button.hidden = !navigator.clipboard;
  for (const part of document.querySelectorAll("[autofocus]")) part.focus();
  enliven(document);
  const cards = byId("vh-cards");
  if (cards) liveCards(cards);
  const progress = byId("vh-progress");
  if (progress) liveProgress(progress);
});
