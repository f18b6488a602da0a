// The page: scans are sent to the API as they are chosen, and what it answers is shown. Nothing else is asked for.
"use strict";

const at = (id) => document.getElementById(id);
const state = { model: null, scans: [], current: -1, panels: [] };
const TRIES = 20; // of a request that the server is too busy for

function option(text, value) {
  const made = document.createElement("option");
  made.textContent = text;
  made.value = value;
  return made;
}

function say(text) { at("status").textContent = text; }

function complain(text) {
  at("error").textContent = text || "";
  at("error").hidden = !text;
}

async function ask(path, body) {
  for (let number = 0; ; number += 1) {
    let answer;
    try {
      answer = await fetch(path, body ? { method: "POST", body, headers: { "content-type": "application/octet-stream" } } : {});
    } catch (error) {
      throw new Error("The server does not answer; is btkit serve still running?");
    }
    if (answer.status === 429 && number < TRIES) {
      say("The server is busy; waiting for a turn.");
      const seconds = Number(answer.headers.get("retry-after")) || 1;
      await new Promise((go) => setTimeout(go, 1000 * seconds * (0.5 + Math.random())));
      continue;
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `The server answered ${answer.status}.`);
  }
}

// Panels: a method and its map

function addPanel(method) {
  const root = at("panel").content.firstElementChild.cloneNode(true);
  const panel = { root, found: null, asked: 0 };
  const find = (name) => root.querySelector(`.${name}`);
  panel.find = find;
  for (const name of state.model.methods) find("method").append(option(name.replaceAll("_", " "), name));
  for (const name of state.model.targets) find("target").append(option(name === "predicted" ? "the predicted class" : name, name));
  find("against").append(option("nothing else", ""));
  for (const name of state.model.classes) find("against").append(option(name, name));
  find("method").value = method;
  for (const name of ["method", "target", "against"]) find(name).addEventListener("change", () => explain(panel));
  find("save-map").addEventListener("click", () => save(bytes(panel.found.map), named(panel, "npy"), "application/octet-stream"));
  find("save-picture").addEventListener("click", () => savePicture(panel));
  find("save-summary").addEventListener("click", () => saveSummary(panel));
  state.panels.push(panel);
  at("panels").append(root);
  return panel;
}

function query(panel) {
  const target = panel.find("target").value, against = panel.find("against").value;
  const first = target === "predicted" && against ? panel.predicted || state.model.classes[0] : target;
  return new URLSearchParams({ method: panel.find("method").value, target: against ? `${first}-vs-${against}` : target });
}

async function explain(panel) {
  const scan = state.scans[state.current];
  if (!scan) return;
  const asked = ++panel.asked;
  panel.root.setAttribute("aria-busy", "true");
  say(`Looking at ${scan.name} by ${panel.find("method").value.replaceAll("_", " ")}.`);
  try {
    const found = await (await ask(`/api/explain?${query(panel)}`, scan)).json();
    if (asked !== panel.asked || scan !== state.scans[state.current]) return; // something else is wanted by now
    panel.found = found;
    panel.predicted = found.predicted;
    complain("");
    showAnswer(scan, found);
    showMap(panel, scan, found);
    say(`${scan.name}: ${found.predicted}. ${found.caution || ""}`);
  } catch (error) {
    if (asked !== panel.asked) return;
    complain(`${scan.name}: ${error.message}`);
    say("");
    if (!panel.found) at("result").hidden = true;
  } finally {
    if (asked === panel.asked) panel.root.removeAttribute("aria-busy");
  }
}

function showAnswer(scan, found) {
  const shown = found.calibrated || found.probabilities;
  at("result").hidden = false;
  at("predicted").textContent = found.predicted;
  at("sure").textContent = `p = ${shown[found.predicted].toFixed(3)}`;
  at("caution").textContent = found.caution || "";
  at("caution").hidden = !found.caution;
  at("kind").textContent = found.calibrated
    ? "Calibrated probabilities: of answers that are so sure, about so many are right on slices like those of validation."
    : "As the network gives them: nobody has calibrated this model.";
  const body = at("classes").tBodies[0];
  body.replaceChildren();
  for (const [name, value] of Object.entries(shown).sort((one, other) => other[1] - one[1])) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = value.toFixed(3);
    const meter = document.createElement("meter");
    meter.value = value;
    meter.setAttribute("aria-hidden", "true"); // the number beside it says the same
    row.insertCell().append(meter);
  }
}

function showMap(panel, scan, found) {
  panel.find("slice").src = found.slice;
  panel.find("slice").alt = `${scan.name} as the network sees it`;
  panel.find("layer").src = found.layer_picture;
  panel.find("layer").alt = `Map by ${found.method.replaceAll("_", " ")} of ${found.target}`;
  panel.find("view").setAttribute("aria-label", `${scan.name} with its map; arrow keys move it when it is enlarged`);
  panel.find("says").textContent =
    `Explains ${found.target}; relevance up to ${found.peak.toPrecision(2)}` +
    (found.signed ? "; blue speaks against it." : ".");
  panel.find("flags").replaceChildren(...Object.values(found.flags).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// Files that are kept

function bytes(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }

function named(panel, ending) {
  return `${state.scans[state.current].name.replace(/\.[^.]*$/, "")}.${panel.found.method}.${ending}`;
}

function save(content, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function savePicture(panel) {
  const slice = panel.find("slice"), canvas = document.createElement("canvas");
  canvas.width = slice.naturalWidth;
  canvas.height = slice.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(slice, 0, 0);
  pen.globalAlpha = at("opacity").value / 100;
  pen.drawImage(panel.find("layer"), 0, 0);
  canvas.toBlob((blob) => save(blob, named(panel, "png"), "image/png"));
}

async function saveSummary(panel) {
  try {
    const answer = await ask(`/api/summary?${query(panel)}`, state.scans[state.current]);
    save(await answer.blob(), named(panel, "html"), "text/html");
    say("The summary is saved.");
  } catch (error) { complain(error.message); }
}

// Scans

function take(files) {
  const first = state.scans.length;
  for (const file of files) {
    const number = state.scans.push(file) - 1;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = file.name;
    button.addEventListener("click", () => choose(number));
    const item = document.createElement("li");
    item.append(button);
    at("scans").append(item);
  }
  if (state.scans.length > first) choose(first);
}

function choose(number) {
  state.current = number;
  document.querySelectorAll("#scans button").forEach((button, place) => button.setAttribute("aria-pressed", String(place === number)));
  for (const panel of state.panels) panel.found = null;
  const scan = state.scans[number];
  if (scan.size > state.model.upload_bytes) {
    at("result").hidden = true;
    complain(`${scan.name} is larger than the ${(state.model.upload_bytes / 2 ** 20).toFixed(0)} MiB that are taken.`);
    return;
  }
  for (const panel of state.panels) explain(panel);
}

async function begin() {
  try {
    state.model = await (await ask("/api/model")).json();
  } catch (error) { complain(error.message); return; }
  at("name").textContent = state.model.name;
  at("notice").textContent = state.model.notice;
  at("version").textContent = `btkit ${state.model.version}`;
  at("warning").textContent = state.model.warning || "";
  at("warning").hidden = !state.model.warning;
  const usual = state.model.methods.includes("gradcam") ? "gradcam" : state.model.methods[0];
  addPanel(usual);
  at("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  at("opacity").addEventListener("input", (event) => document.documentElement.style.setProperty("--opacity", event.target.value / 100));
  at("zoom").addEventListener("input", (event) => document.documentElement.style.setProperty("--zoom", event.target.value / 100));
  at("compare").addEventListener("change", (event) => {
    if (event.target.checked) {
      explain(addPanel(state.model.methods.find((name) => name === "gradcampp") || usual));
    } else {
      state.panels.pop().root.remove();
    }
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
  document.body.dataset.ready = "yes";
}

begin();
