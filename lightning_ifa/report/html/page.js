"use strict";
// Everything below reads the numbers that stand in the page; text goes in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function made(name, attributes, parent, text) {
  const element = name === "svg" || parent?.namespaceURI === SVG
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function thumbs(keys, parent) {
  const row = made("div", { class: "thumbs" }, parent);
  for (const key of keys) {
    for (const source of data.thumbs[key] ?? []) made("img", { src: source, alt: key, title: key }, row);
  }
}

function valueOf(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.value;
  return number === undefined ? cell.textContent : Number(number);
}

function compare(a, b) {
  if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b), undefined, { numeric: true });
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a - b;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const text = head.textContent;
    if (!text) return;
    head.textContent = "";
    made("button", { type: "button" }, head, text).addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending"
        || (!head.hasAttribute("aria-sort") && head.classList.contains("number"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (falling ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

function filterable(table) {
  const box = document.querySelector(`.controls[data-for="${table.id}"]`);
  if (!box) return;
  const count = box.querySelector("output");
  const rows = [...table.tBodies[0].rows];
  const apply = () => {
    const wanted = box.querySelector("input").value.toLowerCase();
    const kind = box.querySelector("select")?.value ?? "";
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(row.textContent.toLowerCase().includes(wanted) && (!kind || row.dataset.kind === kind));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  box.addEventListener("input", apply);
  apply();
}

function histogram(feature, parent) {
  const svg = made("svg", { viewBox: "0 0 100 50", preserveAspectRatio: "none", role: "img" }, parent);
  made("title", {}, svg, "distribution of the contribution, class mean taken off, in each split");
  const splits = Object.entries(feature.counts);
  const most = Math.max(...splits.flatMap(([, counts]) => counts), 1e-9);
  for (const [split, counts] of splits) {
    const step = 100 / counts.length;
    const top = counts.map((count, i) => {
      const y = (50 - 48 * count / most).toFixed(2);
      return `L${(i * step).toFixed(2)} ${y}L${((i + 1) * step).toFixed(2)} ${y}`;
    }).join("");
    const colour = `var(--${split})`;
    made("path", { d: `M0 50${top}L100 50Z`, fill: colour, "fill-opacity": 0.3, stroke: colour, "stroke-width": 1.5,
      "vector-effect": "non-scaling-stroke" }, svg);
  }
  const ends = made("div", { class: "ends2" }, parent);
  made("span", {}, ends, feature.low.toPrecision(2));
  for (const [split] of splits) made("span", { class: split }, ends, split);
  made("span", {}, ends, feature.high.toPrecision(2));
}

function showFeature(row) {
  const side = document.getElementById("feature");
  const feature = data.features[row.dataset.feature];
  row.parentElement.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
  row.classList.add("chosen");
  side.textContent = "";
  made("h3", {}, side, `Channel ${row.dataset.feature}`);
  made("p", { class: "quiet" }, side, "contribution less the mean of its class; training and validation should agree");
  histogram(feature, side);
  if (feature.samples.length) made("p", { class: "quiet" }, side, "responds most to");
  thumbs(feature.samples, side);
}

document.querySelectorAll("table.sortable").forEach((table) => { sortable(table); filterable(table); });
document.querySelectorAll("td[data-thumb]").forEach((cell) => thumbs(cell.dataset.thumb.split(" "), cell));
document.querySelectorAll("tr[data-feature]").forEach((row) => {
  for (const event of ["mouseenter", "focus", "click"]) row.addEventListener(event, () => showFeature(row));
});
const first = document.querySelector("tr[data-feature]");
if (first) showFeature(first);
document.getElementById("strength")?.addEventListener("input", (event) => {
  document.documentElement.style.setProperty("--strength", event.target.value);
});
document.getElementById("stretch")?.addEventListener("change", (event) => {
  document.getElementById("probes").classList.toggle("stretched", event.target.checked);
});
