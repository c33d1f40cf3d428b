// What people see of a bundle. All texts of items go in by textContent: they are strangers' data.
"use strict";

const WAIT = 180; // milliseconds after a keystroke
const K = 10;
const at = id => document.getElementById(id);
const history = []; // {item, text}, oldest first
let places = new Map(); // item -> place in the last recommendations
let asked = 0; // answers of older questions are dropped
let searched = 0;
let timer = 0;

async function ask(path, body) {
  const sent = body && {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)};
  const answer = await fetch(path, sent);
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error ? content.error.message : `the server answered ${answer.status}`);
  return content;
}

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(item, onclick, parts = []) {
  const line = element("li");
  const box = element(onclick ? "button" : "div", "item");
  if (onclick) {
    box.type = "button";
    box.addEventListener("click", onclick);
  }
  box.append(element("span", "text", item.text || "(no text)"), element("span", "id", item.item), ...parts);
  box.dataset.item = item.item;
  line.append(box);
  return line;
}

function complain(error) {
  at("error").textContent = error ? error.message : "";
  at("error").hidden = !error;
}

function moved(item, place) {
  if (!places.size) return [];
  const before = places.get(item);
  if (before === undefined) return [element("span", "moved up", "new")];
  if (before === place) return [element("span", "moved", "=")];
  return [element("span", before > place ? "moved up" : "moved", (before > place ? "▲ " : "▼ ") + Math.abs(before - place))];
}

function bar(score, best) { // as a share of the best score, from 0
  const drawn = element("progress", "bar");
  drawn.max = 1;
  drawn.value = best > 0 ? Math.max(score / best, 0) : 0;
  drawn.setAttribute("aria-hidden", "true");
  return drawn;
}

async function recommend() {
  const mine = ++asked;
  if (!history.length) { // a model knows people by what they chose
    complain(null);
    at("recommended").replaceChildren();
    return;
  }
  const question = {domain: at("domain").value, k: K, exclude_seen: at("exclude").checked, history: history.map(h => h.item)};
  try {
    const answer = await ask("recommend", question);
    if (mine !== asked) return;
    complain(null);
    at("bundle").textContent = answer.bundle;
    const scores = answer.items.map(item => item.score);
    const best = Math.max(...scores);
    at("recommended").replaceChildren(...answer.items.map((item, place) => row(item, () => choose(item), [
      element("span", "score", item.score.toFixed(3)), ...moved(item.item, place), bar(item.score, best)])));
    places = new Map(answer.items.map((item, place) => [item.item, place]));
    at("recommended").dataset.events = history.length;
  } catch (error) {
    if (mine === asked) complain(error);
  }
}

function showHistory() {
  at("history").replaceChildren(...history.map(item => row(item, null)));
  at("history-note").hidden = history.length > 0;
  at("clear").hidden = history.length === 0;
}

function choose(item) {
  history.push({item: item.item, text: item.text});
  showHistory();
  recommend();
}

function clear() {
  history.length = 0;
  places = new Map();
  showHistory();
  recommend();
}

async function search() {
  const mine = ++searched;
  const text = at("query").value.trim();
  if (!text) {
    at("found").replaceChildren();
    at("search-note").textContent = "";
    return;
  }
  try {
    const query = new URLSearchParams({domain: at("domain").value, text, k: 8});
    const answer = await ask(`search?${query}`);
    if (mine !== searched) return;
    at("found").replaceChildren(...answer.items.map(item => row(item, () => choose(item))));
    at("search-note").textContent = answer.items.length ? "" : "No item has all of these words.";
  } catch (error) {
    if (mine === searched) at("search-note").textContent = error.message;
  }
}

function showSize(domains) {
  at("size").textContent = domains[at("domain").value].toLocaleString("en");
}

async function begin() {
  try {
    const health = await ask("health");
    at("bundle").textContent = health.bundle;
    at("domain").replaceChildren(...Object.keys(health.domains).map(name => element("option", "", name)));
    showSize(health.domains);
    at("domain").addEventListener("change", () => {
      showSize(health.domains);
      clear();
      search();
    });
    await recommend();
  } catch (error) {
    complain(error);
  }
}

at("query").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, WAIT);
});
at("exclude").addEventListener("change", recommend);
at("clear").addEventListener("click", clear);
begin();
