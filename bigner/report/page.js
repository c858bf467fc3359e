"use strict";
// Everything that comes from the data becomes text, never markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ON_A_PAGE = 50;
  const GOLD = 1;
  const PREDICTED = 2;
  const CONFIDENCE = 3;
  const names = ["change", "run", "kind", "type", "text", "order"];
  // Of a run alone there is no control for changes and runs.
  const controls = new Map(
    names.map((name) => [name, document.getElementById(name)]).filter(([, control]) => control)
  );
  const list = document.getElementById("sentences");
  const several = data.sentences.length > 0 && data.sentences[0].runs.length > 1;
  let found = [];
  let first = 0;

  function make(tag, classes, text) {
    const element = document.createElement(tag);
    if (classes) element.className = classes;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function value(name) {
    return controls.has(name) ? controls.get(name).value : "";
  }

  // ------------------------------------------------------------ finding

  const typeOf = (spans, place) => (place < 0 ? -1 : spans[place][2]);

  function typesOf(sentence, run, error) {
    return [typeOf(sentence.gold, error[GOLD]), typeOf(run.spans, error[PREDICTED])];
  }

  function isOfType(types, wanted) {
    const [gold, predicted] = wanted.split(":").map(Number);
    if (predicted === undefined) return types.includes(gold);
    return types[0] === gold && types[1] === predicted;
  }

  function chosenErrors(sentence, wanted) {
    return runsOf(sentence, wanted).flatMap((run) =>
      run.errors.filter(
        (error) =>
          (wanted.kind === "" || error[0] === Number(wanted.kind)) &&
          (wanted.type === "" || isOfType(typesOf(sentence, run, error), wanted.type))
      )
    );
  }

  function runsOf(sentence, wanted) {
    return wanted.run === "" ? sentence.runs : [sentence.runs[Number(wanted.run)]];
  }

  // What there is most of comes first; without a number, as of a run that left no confidences, last.
  const orders = {
    errors: (sentence, wanted) =>
      runsOf(sentence, wanted).reduce((sum, { errors }) => sum + errors.length, 0),
    confidence: (sentence, wanted) =>
      Math.max(-1, ...chosenErrors(sentence, wanted).map((error) => error[CONFIDENCE] ?? -1)),
  };

  function sort(wanted) {
    const most = orders[wanted.order];
    if (!most) return;
    const numbers = new Map(found.map((sentence) => [sentence, most(sentence, wanted)]));
    found.sort((a, b) => numbers.get(b) - numbers.get(a) || a.line - b.line);
  }

  function find() {
    const wanted = Object.fromEntries(names.map((name) => [name, value(name)]));
    const text = wanted.text.trim().toLowerCase();
    found = data.sentences.filter(
      (sentence) =>
        (wanted.change === "" || sentence.change === Number(wanted.change)) &&
        (text === "" || sentence.words.join(" ").toLowerCase().includes(text)) &&
        chosenErrors(sentence, wanted).length > 0
    );
    sort(wanted);
    turnTo(0);
  }

  // ------------------------------------------------------------ showing

  function turnTo(place) {
    first = place;
    const last = Math.min(first + ON_A_PAGE, found.length);
    list.replaceChildren(...found.slice(first, last).map(card));
    const count = (number) => number.toLocaleString("en");
    const some = found.length ? `${count(first + 1)}–${count(last)} of ${count(found.length)}` : "none";
    const all = count(data.sentences.length);
    const rest = found.length < data.sentences.length ? ` chosen of ${all} with errors` : " sentences";
    document.getElementById("shown").textContent = some + rest;
    for (const button of document.querySelectorAll("[data-turn]")) {
      const next = first + Number(button.dataset.turn) * ON_A_PAGE;
      button.disabled = next < 0 || next >= found.length;
    }
  }

  function card(sentence) {
    const item = make("li", "sentence");
    const top = make("p", "place", `${data.file}:${sentence.line}`);
    if (sentence.change >= 0) top.append(make("span", "change", data.changes[sentence.change]));
    item.append(top, row("gold", "", sentence.words, sentence.gold, goldMarks(sentence)));
    sentence.runs.forEach((run, i) => {
      const marks = new Map(run.errors.map((error) => [error[PREDICTED], error[0]]));
      const name = several ? "AB"[i] : "predicted";
      const letter = several ? `letter run-${"ab"[i]}` : "";
      const shown = row(name, letter, sentence.words, run.spans, marks);
      shown.append(told(sentence, run));
      item.append(shown);
    });
    return item;
  }

  // Of two runs each has errors of its own, so gold shows none.
  function goldMarks(sentence) {
    if (several) return new Map();
    return new Map(sentence.runs[0].errors.map((error) => [error[GOLD], error[0]]));
  }

  function row(name, letter, words, spans, marks) {
    const line = make("div", "row");
    line.append(make("span", `side ${letter}`, name));
    const text = make("span", "words");
    text.dir = "auto";
    let next = 0;
    spans.forEach(([start, end, type], i) => {
      if (start > next) text.append(`${words.slice(next, start).join(" ")} `);
      const kind = marks.get(i);
      const mark = make("mark", kind === undefined ? "right" : `kind-${kind}`);
      mark.append(words.slice(start, end + 1).join(" "), make("small", "", data.types[type]));
      text.append(mark, " ");
      next = end + 1;
    });
    text.append(words.slice(next).join(" "));
    line.append(text);
    return line;
  }

  function told(sentence, run) {
    const chips = make("span", "chips");
    for (const error of run.errors) {
      const types = typesOf(sentence, run, error)
        .filter((type, i, both) => type >= 0 && type !== both[i - 1])
        .map((type) => data.types[type]);
      const chip = make("span", `kind kind-${error[0]}`, `${data.kinds[error[0]]} ${types.join(" → ")}`);
      if (error[CONFIDENCE] !== null) {
        chip.append(make("span", "confidence", error[CONFIDENCE].toFixed(4)));
      }
      chips.append(chip);
    }
    if (!run.errors.length) chips.append(make("span", "kind all-right", "right"));
    return chips;
  }

  // ------------------------------------------------------------ choosing

  function option(parent, text, chosen) {
    const element = make("option", "", text);
    element.value = chosen;
    parent.append(element);
  }

  function fillTypes() {
    const taken = new Set();
    for (const sentence of data.sentences) {
      for (const run of sentence.runs) {
        for (const error of run.errors) {
          const [gold, predicted] = typesOf(sentence, run, error);
          if (gold >= 0 && predicted >= 0 && gold !== predicted) taken.add(`${gold}:${predicted}`);
        }
      }
    }
    const control = controls.get("type");
    const groups = ["in gold or prediction", "gold → predicted"].map((label) => {
      const group = make("optgroup");
      group.label = label;
      control.append(group);
      return group;
    });
    data.types.forEach((name, i) => option(groups[0], name, String(i)));
    for (let gold = 0; gold < data.types.length; gold++) {
      for (let predicted = 0; predicted < data.types.length; predicted++) {
        if (taken.has(`${gold}:${predicted}`)) {
          const text = `${data.types[gold]} → ${data.types[predicted]}`;
          option(groups[1], text, `${gold}:${predicted}`);
        }
      }
    }
  }

  function clear() {
    for (const [name, control] of controls) control.value = name === "order" ? "position" : "";
  }

  fillTypes();
  for (const control of controls.values()) control.addEventListener("input", find);
  document.getElementById("clear").addEventListener("click", () => {
    clear();
    find();
  });
  for (const button of document.querySelectorAll("[data-kind], [data-type], [data-change], [data-order]")) {
    button.addEventListener("click", () => {
      clear();
      for (const [name, control] of controls) {
        if (button.dataset[name] !== undefined) control.value = button.dataset[name];
      }
      find();
      document.getElementById("browser").scrollIntoView();
    });
  }
  for (const button of document.querySelectorAll("[data-turn]")) {
    button.addEventListener("click", () => {
      turnTo(first + Number(button.dataset.turn) * ON_A_PAGE);
      document.getElementById("browser").scrollIntoView();
    });
  }
  find();
})();
