// The lab's page: sends what the person chooses, and shows what the server draws.
"use strict";

const $ = (id) => document.getElementById(id);
const controls = $("controls");

async function send(path, wish) {
  $("failure").hidden = true;
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(wish ?? {}),
  }).catch((error) => ({ ok: false, text: () => String(error) }));
  if (!answer.ok) fail(await answer.text());
}

function fail(text) {
  $("failure").textContent = "⚠ " + text;
  $("failure").hidden = false;
}

// Makes `old` like `fresh` and keeps what is alike, so that focus, clicks and screen readers do not lose their place.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  children(old, fresh);
}

function children(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((child, index) => {
    let present = old.childNodes[index];
    if (child.id && present?.id !== child.id) {
      // A new row may have come in between: what has a name is looked for.
      const known = [...old.childNodes].find((one) => one.id === child.id);
      if (known) old.insertBefore(known, present ?? null);
      else old.insertBefore(child, present ?? null);
      present = old.childNodes[index];
    }
    if (!present) old.appendChild(child);
    else if (present !== child) morph(present, child);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function draw({ status, board, spoken }) {
  const here = status.lesson === controls.dataset.lesson;
  const running = status.running;
  $("run").disabled = running;
  $("go-on").disabled = !(here && status.held);
  $("end").disabled = !(here && running);
  $("state").textContent = !running ? (here ? "over" : "nothing runs")
    : !here ? `lesson “${status.lesson}” runs`
    : status.held ? "runs, and waits for you when its program is ready" : "runs";
  if (!here) return;
  if (status.failure) fail(status.failure);
  if (spoken.length) $("spoken").textContent = spoken.join(" ");
  const fresh = document.createElement("div");
  fresh.innerHTML = board;
  const focused = document.activeElement?.id;
  children($("board"), fresh);
  if (focused && document.activeElement?.id !== focused) $(focused)?.focus();
}

function choose(row) {
  const dialog = $("signals");
  dialog.dataset.pid = row.dataset.pid;
  $("signals-title").textContent = `Send ${row.dataset.name} a signal`;
  dialog.returnValue = "";
  dialog.showModal();
}

if (controls) {
  controls.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = [...controls.querySelectorAll("[name=alternative]:checked")].map((box) => box.value);
    send("/run", { lesson: controls.dataset.lesson, alternatives: chosen, hold: $("hold").checked });
  });
  $("go-on").addEventListener("click", () => send("/go-on"));
  $("end").addEventListener("click", () => send("/end"));
  $("board").addEventListener("click", (event) => {
    const row = event.target.closest(".choosable");
    if (row) choose(row);
  });
  $("board").addEventListener("keydown", (event) => {
    const row = event.target.closest(".choosable");
    if (row && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      choose(row);
    }
  });
  $("signals").addEventListener("close", (event) => {
    const { returnValue, dataset } = event.target;
    if (returnValue) send("/signal", { pid: Number(dataset.pid), signal: returnValue });
  });
  for (const choice of document.querySelectorAll("[name=choice]")) {
    choice.addEventListener("change", () => {
      $("verdict").textContent = "right" in choice.dataset ? "We will see: run it." : "Let us see: run it.";
    });
  }
  const events = new EventSource("/events");
  events.onmessage = (event) => draw(JSON.parse(event.data));
  events.onerror = () => { $("state").textContent = "no connection to the lab"; };
}
