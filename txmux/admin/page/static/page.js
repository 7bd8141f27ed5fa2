// Keeps the page up to date, draws its charts, and does what its buttons say. The page reads as well without it.
"use strict";

const PERIOD = 2000; // ms
const SHORTEST = 60; // seconds of a chart
const said = document.getElementById("said");
const live = document.getElementById("live");
const charts = new Map();
const shown = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part, part.innerHTML.trim()])); // as they came
const tags = new Map(); // of what is shown, by the part

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
    width: figure.clientWidth, height: 104, padding: [8, 12, 0, 0], legend: { show: false }, cursor: { y: false },
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
  root.querySelectorAll("button[hidden]").forEach((button) => { button.hidden = false; });
}

function say(text) {
  said.textContent = text;
}

function busy(part) {
  const selection = document.getSelection();
  return part.contains(document.activeElement) && document.activeElement.matches("input, select, button, a")
    || (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
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
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    part.replaceChildren(next.content);
    part.querySelectorAll("details").forEach((one, number) => { if (open[number]) one.open = true; });
    show(part);
    if (name === "now") drawCharts();
  }
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

async function post(button) {
  if (button.dataset.question && !confirm(button.dataset.question)) return;
  button.disabled = true;
  try {
    const answer = await fetch(button.dataset.post, {
      method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: button.dataset.body,
    });
    const told = await answer.json();
    say(answer.ok ? (told.changes || "done") : (told.error || "refused"));
    button.blur();
    await update();
  } catch (problem) {
    say(problem.message);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.post) post(button);
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
