// Keeps the page up to date, draws its charts, and does what its buttons say. The page reads as well without it.
"use strict";

const PERIOD = 2000; // ms
const WHOLE = 10000; // ms after which what is no part is fetched, with the whole page
const LONG = 1000; // lines of rules that are fetched again only when they have changed
const SHORTEST = 60; // seconds of a chart
const said = document.getElementById("said");
const live = document.getElementById("live");
const menu = document.getElementById("menu");
let opener = null; // the button whose menu is open
const charts = new Map();
const shown = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part, part.innerHTML.trim()])); // as they came
const tags = new Map(); // of what is shown, by the part
let whole = { at: Date.now(), version: version() };

// The process that serves and its rules.
function version() {
  return document.querySelector("[data-version]")?.dataset.version;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart(figure) {
  const name = figure.dataset.chart;
  const data = [JSON.parse(figure.dataset.times), JSON.parse(figure.dataset.values)];
  const still = figure.querySelector("svg");
  if (!window.uPlot || data[0].length < 2) return; // the page has drawn the line itself
  still.style.display = "none";
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--edge"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const chart = new uPlot({
    width: figure.clientWidth, height: innerWidth > 600 ? 104 : 66, padding: [8, 26, 0, 0], legend: { show: false }, cursor: { y: false },
    scales: { x: { range: (_, first, last) => [Math.min(first, last - SHORTEST), last] }, y: { range: (_, low, high) => [0, roundUp(high)] } },
    axes: [
      { ...axis, size: 22, space: 60, incrs: [10, 20, 30, 60, 120, 300], values: (_, marks, at, space, step) => marks.map((mark) => clock(mark, step)) },
      { ...axis, size: 46, splits: (_, at, low, high) => high > 1 ? [0, high / 2, high] : [0, high], values: (_, marks) => marks.map(short) },
    ],
    series: [{}, { stroke: colour("--link"), width: 1.5, fill: colour("--link") + "22", points: { show: false } }],
  }, data, figure);
  charts.set(name, chart);
}

function clock(seconds, step) {
  return new Date(seconds * 1000).toTimeString().slice(0, step < 60 ? 8 : 5);
}

// The end of an axis: round, and so is its half.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * [1, 2, 4, 10].find((times) => times * power >= (value || 1));
}

function short(value) {
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= unit) return +(value / unit).toFixed(1) + letter;
  return +value.toFixed(2);
}

function drawCharts() {
  for (const chart of charts.values()) {
    chart.root.parentNode?.querySelector(":scope > svg")?.style.removeProperty("display");
    chart.destroy();
  }
  charts.clear();
  document.querySelectorAll("figure[data-chart]").forEach(drawChart);
}

function show(root) {
  root.querySelectorAll("button[hidden], details[hidden]").forEach((one) => { one.hidden = false; });
}

function say(text) {
  said.textContent = text;
}

// While its menu is open or its text is marked, a part stays as it is.
function busy(part) {
  const selection = document.getSelection();
  return (opener && part.contains(opener)) || (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
}

function same(one, other) {
  return one.tagName === other.tagName && one.ariaLabel === other.ariaLabel && one.href === other.href && (one.ariaLabel || one.textContent === other.textContent);
}

function replace(part, ...content) {
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  const scrolled = [...part.querySelectorAll("[role=region]")].map((one) => [one.scrollLeft, one.scrollTop]);
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  part.replaceChildren(...content);
  part.querySelectorAll("details").forEach((one, number) => { if (number in open) one.open = open[number]; });
  part.querySelectorAll("[role=region]").forEach((one, number) => { if (scrolled[number]) one.scrollTo(...scrolled[number]); });
  show(part);
  if (focused) [...part.querySelectorAll(focused.tagName)].find((one) => same(one, focused))?.focus({ preventScroll: true });
}

// The head, the rules with their hits, and the listeners of the form.
async function updateWhole() {
  const now = { at: Date.now(), version: version() };
  const isLong = document.querySelectorAll("#text tr").length > LONG;
  if (now.version === whole.version && (isLong || now.at - whole.at < WHOLE)) return;
  const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) throw new Error("the service answers " + answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["about", "text", "on"]) {
    const part = document.getElementById(id);
    const next = page.getElementById(id);
    if (part.innerHTML === next.innerHTML) continue;
    if (busy(part) || part === document.activeElement) { now.version = whole.version; continue; } // later
    replace(part, ...next.childNodes);
  }
  whole = now;
}

async function update() {
  const query = new URLSearchParams(location.search);
  query.set("have", [...tags.values()].join(" "));
  const answer = await fetch(`${location.pathname}?${query}`, { credentials: "same-origin", cache: "no-store" });
  if (answer.status === 401) { location.reload(); return; }
  if (!answer.ok) throw new Error("the service answers " + answer.status);
  for (const [name, { tag, html }] of Object.entries(await answer.json())) {
    const part = document.querySelector(`[data-live="${name}"]`);
    if (!part || busy(part)) continue; // it comes again, since its tag is not kept
    tags.set(name, tag);
    const next = document.createElement("template");
    next.innerHTML = html.trim();
    if (shown.get(part) === next.innerHTML) continue;
    shown.set(part, next.innerHTML);
    replace(part, next.content);
    if (name === "now") drawCharts();
  }
  await updateWhole();
}

async function keepUpdating() {
  if (live.checked && !document.hidden) {
    try {
      await update();
      if (said.dataset.lost) { say(""); delete said.dataset.lost; }
    } catch (problem) {
      say("not up to date: " + problem.message);
      said.dataset.lost = "yes";
    }
  }
  setTimeout(keepUpdating, PERIOD);
}

async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const told = await answer.json();
    say(answer.ok ? (told.changes || "done") : (told.error || "refused"));
    await update();
    return answer.ok;
  } catch (problem) {
    say(problem.message);
    return false;
  }
}

// An action is what `Action` in tables.py is.
function act([, path, body, question, field]) {
  if (field) {
    const answer = prompt(question)?.trim();
    // Number() takes 1e3, and makes of what is no number a NaN, which JSON writes as null: the default.
    if (/^\d+$/.test(answer)) post(path, { ...body, [field]: Number(answer) });
    else if (answer) say(`${answer}: is no whole number; nothing was changed`);
  } else if (!question || confirm(question)) post(path, body);
}

function fill(button) {
  if (opener && opener !== button) menu.hidePopover();
  menu.replaceChildren(...JSON.parse(button.dataset.menu).map((action) => {
    const entry = document.createElement("button");
    entry.type = "button";
    entry.textContent = action[0];
    entry.addEventListener("click", () => { menu.hidePopover(); act(action); });
    return entry;
  }));
  menu.firstChild.autofocus = true;
  menu.ariaLabel = button.ariaLabel;
  const { top, right, bottom } = button.getBoundingClientRect();
  const fits = bottom + 36 * menu.children.length + 16 < innerHeight;
  menu.style.right = Math.max(document.documentElement.clientWidth - right, 8) + "px";
  menu.style.top = fits ? bottom + 2 + "px" : "auto";
  menu.style.bottom = fits ? "auto" : innerHeight - top + 2 + "px";
  opener = button;
}

menu.addEventListener("toggle", (event) => { if (event.newState === "closed") opener = null; });
menu.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const entries = [...menu.children];
  entries.at((entries.indexOf(document.activeElement) + step) % entries.length).focus();
  event.preventDefault();
});
addEventListener("scroll", () => menu.hidePopover(), { passive: true });

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.form) return;
  event.preventDefault();
  const body = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
  if (body.seconds) body.seconds = Number(body.seconds);
  if (await post(form.dataset.form, body)) form.reset();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.menu) fill(button);
  if (button.dataset.act) act(JSON.parse(button.dataset.act));
  if (button.dataset.copy) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      say("copied");
    } catch (problem) {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      document.getSelection().removeAllRanges();
      document.getSelection().addRange(range);
      say("marked: copy it with the keyboard");
    }
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
let resizing;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawCharts, 200); });
document.querySelector(".live").hidden = false;
show(document);
drawCharts();
setTimeout(keepUpdating, PERIOD);
