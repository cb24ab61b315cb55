// The gallery; page.js comes before it and holds the run and the filters.

function showGallery() {
  const query = state.query.toLowerCase();
  const fits = (image) =>
    OUTCOMES[state.outcome][1](image) && (state.label === "" || image.label === +state.label) &&
    image.file.toLowerCase().includes(query);
  const found = run.images.filter(fits);
  const first = state.page * PER_PAGE;
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  $("gallery").replaceChildren(...found.slice(first, first + PER_PAGE).map(card));
  $("count").textContent = found.length
    ? `Images ${first + 1} to ${Math.min(first + PER_PAGE, found.length)} of ${found.length}`
    : "No image fits these filters.";
  $("page").textContent = `Page ${state.page + 1} of ${pages}`;
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page + 1 >= pages;
  $("pages").hidden = pages === 1;
}

function turn(step) {
  state.page += step;
  showGallery();
  $("gallery-title").focus();
}

/** One image: its picture, the verdict, the votes, and its views. */
function card(image) {
  const [width, height] = image.size;
  const frame = el("span", { class: "frame", hidden: true });
  const picture = el("div", { class: "picture" }, el("img", { src: image.picture, alt: "", width, height }), frame);
  const says = (title, label, confidence) =>
    el("div", {}, el("dt", {}, title), el("dd", { class: label === image.label ? "hit" : "miss" }, name(label),
      ` ${percent(confidence)}\u00a0%`));
  const heading = el("h3", { class: image.outcome }, VERDICTS[image.outcome]);
  const facts = el("dl", { class: "says" },
    el("div", {}, el("dt", {}, "Label"), el("dd", {}, name(image.label))),
    says("One view", image.view[0], image.sure[0]), says(run.method, image.prediction, image.confidence));
  return el("article", { class: "card" },
    el("div", { class: "about" }, picture, el("div", {}, heading, facts, el("p", { class: "file" }, path(image.file)))),
    votes(image), views(image, frame));
}

function bar(share) {
  const fill = el("span");
  fill.style.width = `${100 * share}%`;
  return fill;
}

function votes(image) {
  const others = run.kept - image.votes.reduce((sum, [, , count]) => sum + count, 0);
  const row = ([label, probability, count]) =>
    el("tr", { class: label === image.label ? "hit" : "" }, el("th", { scope: "row" }, name(label)),
      el("td", { class: "bar" }, bar(probability)),
      cell(percent(probability)), cell(count));
  const rest = others ? [el("tr", {}, el("th", { scope: "row", colspan: 3 }, "other classes"), cell(others))] : [];
  return el("table", { class: "votes" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Votes"), el("td"), el("th", { scope: "col", class: "n" }, "%"),
      el("th", { scope: "col", class: "n" }, `of ${run.kept}`))),
    el("tbody", {}, ...image.votes.map(row), ...rest));
}

function views(image, frame) {
  const numbers = state.order === "score" ? image.order : [...image.order].sort((a, b) => a - b);
  const buttons = numbers.map((number) => viewButton(image, number));
  const detail = el("p", { class: "detail" });
  const grid = el("div", { class: "views", role: "group", "aria-label": "Views; arrow keys walk through them" }, ...buttons);
  const show = (event) => {
    const button = event.target.closest(".view");
    if (button) showView(image, +button.dataset.number, button, frame, detail);
  };
  // Not pointerover, which also comes when the page scrolls below a pointer at rest; click, because
  // Safari does not focus a button that is tapped.
  for (const event of ["pointermove", "focusin", "click"]) grid.addEventListener(event, show);
  grid.addEventListener("keydown", walk);
  buttons[0].tabIndex = 0;
  showView(image, numbers[0], null, frame, detail);
  return el("div", { class: "side" }, grid, detail);
}

/** What one view predicts, in words. */
function words(image, number) {
  const rank = image.order.indexOf(number);
  const title = number ? `View ${number}` : "View 0, the centre crop";
  return [`${title}, ${rank < run.kept ? "kept" : "dropped"}, rank ${rank + 1} of ${image.order.length}: predicts `,
    image.view[number],
    ` (${percent(image.sure[number])} %), score ${image.score[number].toFixed(3)}, entropy ${image.entropy[number].toFixed(3)}` +
    (image.sharpness ? `, sharpness ${image.sharpness[number].toFixed(3)}` : "")];
}

function viewButton(image, number) {
  const [before, label, after] = words(image, number);
  const kept = image.order.indexOf(number) < run.kept;
  const hit = label === image.label;
  return el("button", { type: "button", class: `view${kept ? " kept" : ""}${hit ? " hit" : ""}`, tabindex: -1,
    "data-number": number, "aria-label": before + run.classnames[label] + after }, crop(image, number));
}

/** A view cut out of the one embedded picture: its box fills the element. */
function crop(image, number) {
  const [[width, height], [left, top, right, bottom, flip]] = [image.size, image.boxes[number]];
  const [w, h] = [right - left, bottom - top];
  const place = (start, free) => (free > 0 ? (100 * start) / free : 0);
  const piece = el("span", { class: "crop" });
  piece.style.backgroundImage = `url(${image.picture})`;
  piece.style.backgroundSize = `${(100 * width) / w}% ${(100 * height) / h}%`;
  piece.style.backgroundPosition = `${place(left, width - w)}% ${place(top, height - h)}%`;
  if (flip) piece.style.transform = "scaleX(-1)";
  return piece;
}

function showView(image, number, button, frame, detail) {
  const [before, label, after] = words(image, number);
  detail.replaceChildren(crop(image, number), el("span", {}, before, el("b", {}, name(label)), after));
  frame.hidden = !button;
  if (!button) return;
  const [[width, height], [left, top, right, bottom]] = [image.size, image.boxes[number]];
  const style = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  for (const [key, share] of Object.entries(style)) frame.style[key] = `${100 * share}%`;
}

function walk(event) {
  const buttons = [...event.currentTarget.children];
  const columns = getComputedStyle(event.currentTarget).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const from = buttons.indexOf(event.target);
  const to = buttons[Math.min(buttons.length - 1, Math.max(0, from + steps[event.key]))];
  event.target.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

$("run").replaceChildren(...runs.map((script, i) => {
  const { trainer, dataset, versions } = JSON.parse(script.textContent);
  return el("option", { value: i }, `${trainer} on ${dataset}: ${versions[0][1]}`);
}));
$("choose").hidden = runs.length === 1;
$("run").addEventListener("change", (event) => showRun(+event.target.value));
$("outcomes").addEventListener("change", (event) => changed({ outcome: event.target.value }));
$("orders").addEventListener("change", (event) => changed({ order: event.target.value, page: state.page }));
$("class").addEventListener("change", (event) => changed({ label: event.target.value }));
$("search").addEventListener("input", (event) => changed({ query: event.target.value }));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
showRun(0);
