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

async function ask(path, body, signal) {
  for (let number = 0; ; number += 1) {
    let answer;
    try {
      answer = await fetch(path, body ? { method: "POST", body, signal, headers: { "content-type": "application/octet-stream" } } : { signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer; is btkit serve still running?");
    }
    if (answer.status === 429 && number < TRIES) {
      say("The server is busy; waiting for a turn.");
      const seconds = Number(answer.headers.get("retry-after")) || 1;
      await new Promise((go) => setTimeout(go, 1000 * seconds * (0.5 + Math.random())));
      if (signal && signal.aborted) throw new DOMException("nobody waits for it any more", "AbortError");
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
  const panel = { root, found: null, scan: null, predicted: null, waits: null };
  const find = (name) => root.querySelector(`.${name}`);
  panel.find = find;
  for (const name of state.model.methods) find("method").append(option(name.replaceAll("_", " "), name));
  for (const name of state.model.targets) find("target").append(option(name === "predicted" ? "the predicted class" : name, name));
  find("against").append(option("nothing else", ""));
  for (const name of state.model.classes) find("against").append(option(name, name));
  find("method").value = method;
  for (const name of ["method", "target", "against"]) find(name).addEventListener("change", () => explain(panel));
  find("save-map").addEventListener("click", () => save(bytes(panel.found.map), named(panel.found, "npy"), "application/octet-stream"));
  find("save-picture").addEventListener("click", () => savePicture(panel));
  find("save-summary").addEventListener("click", () => saveSummary(panel));
  state.panels.push(panel);
  at("panels").append(root);
  return panel;
}

// Volumes: which slice is looked at

function where(scan) {
  const said = new URLSearchParams();
  if (scan.slice) said.set("slice", scan.slice);
  if (scan.plane) said.set("plane", scan.plane);
  return said;
}

function showVolume(scan, found) {
  at("volume").hidden = !found.slices;
  if (!found.slices) return;
  scan.slice = found.slice_number;
  at("slice").max = found.slices;
  at("slice").value = found.slice_number;
  at("slice").disabled = found.slices === 1;
  at("whole").disabled = found.slices === 1;
  at("slice-number").textContent = `${found.slice_number} of ${found.slices}`;
  at("plane").value = scan.plane || "";
  at("plane-choice").hidden = !/\.nii(\.gz)?$/i.test(scan.name);
  at("note").textContent = found.note || "";
}

function goTo(number) {
  const scan = state.scans[state.current];
  if (!scan || !scan.content) return;
  scan.slice = number;
  if (number) at("slice-number").textContent = `${number} of ${at("slice").max}`;
  for (const panel of state.panels) { panel.predicted = null; explain(panel); }
}

async function wholeVolume() {
  const scan = state.scans[state.current];
  at("whole").disabled = true;
  say(`Looking at every slice of ${scan.name}.`);
  try {
    const found = await (await ask(`/api/volume?${where(scan)}`, scan.content)).json();
    if (scan === state.scans[state.current]) showWhole(found);
    say("");
  } catch (error) { complain(`${scan.name}: ${error.message}`); say(""); }
  at("whole").disabled = false;
}

function showWhole(found) {
  const shown = found.calibrated || found.probabilities, words = document.createElement("p"), jumps = document.createElement("p");
  words.textContent = `The volume: ${found.predicted}, p = ${shown[found.predicted].toFixed(3)}, a mean over ${found.slices_used} of ` +
    `${found.slices} slices. ${found.caution || ""}`;
  jumps.append("Likeliest slice of ");
  for (const [name, peak] of Object.entries(found.peaks)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${name}: ${peak.slice} (p = ${peak.probability.toFixed(2)})`;
    button.addEventListener("click", () => { at("slice").value = peak.slice; goTo(peak.slice); });
    jumps.append(button);
  }
  at("whole-answer").replaceChildren(words, jumps);
}

// What a panel wants to know of a scan. Which class "the predicted class" is, the network says.
async function query(panel, scan, signal) {
  const target = panel.find("target").value, against = panel.find("against").value;
  let first = target;
  if (target === "predicted" && against) {
    if (!panel.predicted) panel.predicted = (await (await ask(`/api/predict?${where(scan)}`, scan.content, signal)).json()).predicted;
    first = panel.predicted;
  }
  const wish = where(scan);
  wish.set("method", panel.find("method").value);
  wish.set("target", against ? `${first}-vs-${against}` : target);
  return wish;
}

// A panel without a map: what was there is of another wish.
function blank(panel) {
  if (panel.waits) panel.waits.abort();
  panel.waits = null;
  panel.found = null;
  for (const name of ["slice", "layer"]) panel.find(name).removeAttribute("src");
  panel.find("says").textContent = "";
  panel.find("flags").replaceChildren();
  for (const button of panel.root.querySelectorAll("button")) button.disabled = true;
}

async function explain(panel) {
  const scan = state.scans[state.current];
  blank(panel);
  if (!scan || !scan.content) return;
  if (panel.scan !== scan) panel.predicted = null;
  panel.scan = scan;
  const waits = panel.waits = new AbortController();
  panel.root.setAttribute("aria-busy", "true");
  say(`Looking at ${scan.name} by ${panel.find("method").value.replaceAll("_", " ")}.`);
  try {
    const wish = await query(panel, scan, waits.signal);
    const found = await (await ask(`/api/explain?${wish}`, scan.content, waits.signal)).json();
    if (waits.signal.aborted) return;
    panel.found = { ...found, scan, wish };
    panel.predicted = found.predicted;
    showAnswer(found);
    showVolume(scan, found);
    showMap(panel, scan, found);
    say(`${scan.name}${found.slices ? `, slice ${found.slice_number}` : ""}: ${found.predicted}. ${found.caution || ""}`);
  } catch (error) {
    if (waits.signal.aborted) return; // something else is wanted by now
    panel.find("says").textContent = error.message;
    complain(`${scan.name}: ${error.message}`);
    say("");
    classAlone(scan);
  } finally {
    if (panel.waits === waits) panel.root.removeAttribute("aria-busy");
  }
}

// Where no map could be made the network may still have an answer.
async function classAlone(scan) {
  if (!at("answer").hidden || state.panels.some((panel) => panel.found)) return;
  try {
    const found = await (await ask(`/api/predict?${where(scan)}`, scan.content)).json();
    if (scan === state.scans[state.current]) { showAnswer(found); showVolume(scan, found); }
  } catch (error) { /* what is wrong has been said */ }
}

function showAnswer(found) {
  const shown = found.calibrated || found.probabilities;
  at("answer").hidden = false;
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
    `${found.method.replaceAll("_", " ")} explains ${found.target}; relevance up to ${found.peak.toPrecision(2)}` +
    (found.signed ? "; blue speaks against it." : ".");
  for (const button of panel.root.querySelectorAll("button")) button.disabled = false;
  panel.find("flags").replaceChildren(...Object.values(found.flags).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// Files that are kept

function bytes(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }

function named(found, ending) {
  const slice = found.slices > 1 ? `.${found.slice_number}` : "";
  return `${found.scan.name.replace(/(\.nii\.gz|\.[^.]*)$/i, "")}${slice}.${found.method}.${ending}`;
}

function save(content, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function savePicture(panel) {
  const slice = panel.find("slice"), canvas = document.createElement("canvas"), name = named(panel.found, "png");
  canvas.width = slice.naturalWidth;
  canvas.height = slice.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(slice, 0, 0);
  pen.globalAlpha = at("opacity").value / 100;
  pen.drawImage(panel.find("layer"), 0, 0);
  canvas.toBlob((blob) => save(blob, name, "image/png"));
}

async function saveSummary(panel) {
  const found = panel.found;
  try {
    const answer = await ask(`/api/summary?${found.wish}`, found.scan.content);
    save(await answer.blob(), named(found, "html"), "text/html");
    say("The summary is saved.");
  } catch (error) { complain(error.message); }
}

// Scans

async function isDicom(file) {
  try { return new TextDecoder("latin1").decode(await file.slice(128, 132).arrayBuffer()) === "DICM"; } catch (error) { return false; }
}

// Files as one tar (POSIX ustar), which the API takes for a series.
async function packed(files) {
  const pieces = [], letters = new TextEncoder();
  for (const [number, file] of files.entries()) {
    const head = new Uint8Array(512), put = (text, place) => head.set(letters.encode(text), place);
    const octal = (value, digits) => value.toString(8).padStart(digits, "0");
    put(octal(number, 8), 0);
    put("0000644\0", 100);
    put(`${octal(file.size, 11)}\0`, 124);
    put(`${octal(0, 11)}\0`, 136);
    put("        ", 148);
    put("0", 156);
    put("ustar\x0000", 257);
    put(`${octal(head.reduce((sum, byte) => sum + byte, 0), 6)}\0 `, 148);
    pieces.push(head, file, new Uint8Array((512 - (file.size % 512)) % 512));
  }
  return new File([...pieces, new Uint8Array(1024)], `${files[0].name} and ${files.length - 1} more`);
}

async function take(files) {
  const all = [...files], kinds = await Promise.all(all.map(isDicom)), first = state.scans.length;
  const series = all.filter((file, place) => kinds[place]);
  const scans = series.length > 1 ? [await packed(series), ...all.filter((file, place) => !kinds[place])] : all;
  for (const file of scans) {
    const number = state.scans.push({ name: file.name, file, content: null, slice: null, plane: "" }) - 1;
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

// What was dropped, the files of folders too.
async function dropped(carried) {
  const entries = [...carried.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
  if (!entries.some((entry) => entry && entry.isDirectory)) return carried.files;
  const found = [];
  const open = async (entry) => {
    if (entry.isFile) { found.push(await new Promise((go, no) => entry.file(go, no))); return; }
    const reader = entry.createReader();
    for (let some = [null]; some.length;) {
      some = await new Promise((go, no) => reader.readEntries(go, no));
      for (const inside of some) await open(inside);
    }
  };
  for (const entry of entries) if (entry) await open(entry).catch(() => complain("A folder cannot be read."));
  return found.filter((file) => !file.name.startsWith("."));
}

async function choose(number) {
  const scan = state.scans[state.current = number];
  document.querySelectorAll("#scans button").forEach((button, place) => button.setAttribute("aria-pressed", String(place === number)));
  complain("");
  say("");
  at("answer").hidden = at("volume").hidden = true; // they are of another scan
  at("whole-answer").replaceChildren();
  for (const panel of state.panels) blank(panel);
  try {
    if (scan.file.size > state.model.upload_bytes) {
      throw new Error(`larger than the ${(state.model.upload_bytes / 2 ** 20).toFixed(0)} MiB that are taken.`);
    }
    scan.content = scan.content || await scan.file.arrayBuffer().catch(() => { throw new Error("it cannot be read any more."); });
  } catch (error) {
    complain(`${scan.name}: ${error.message}`);
    return;
  }
  if (state.scans[state.current] !== scan) return;
  at("result").hidden = false;
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
  at("slice").addEventListener("input", (event) => { at("slice-number").textContent = `${event.target.value} of ${event.target.max}`; });
  at("slice").addEventListener("change", (event) => goTo(Number(event.target.value)));
  at("plane").addEventListener("change", (event) => {
    const scan = state.scans[state.current];
    scan.plane = event.target.value;
    scan.slice = null; // as many as there are in that plane
    at("whole-answer").replaceChildren();
    goTo(null);
  });
  at("whole").addEventListener("click", wholeVolume);
  at("opacity").addEventListener("input", (event) => document.documentElement.style.setProperty("--opacity", event.target.value / 100));
  at("zoom").addEventListener("input", (event) => document.documentElement.style.setProperty("--zoom", event.target.value / 100));
  at("compare").addEventListener("change", (event) => {
    if (event.target.checked) {
      explain(addPanel(state.model.methods.find((name) => name === "gradcampp") || usual));
    } else {
      const gone = state.panels.pop();
      blank(gone);
      gone.root.remove();
    }
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => { event.preventDefault(); dropped(event.dataTransfer).then(take); });
  document.body.dataset.ready = "yes";
}

begin();
