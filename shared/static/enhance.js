// Small comforts. Every page works without this file.

// A menu closes when you press Escape or click beside it.
const openMenus = () => document.querySelectorAll("details.menu[open]");

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of openMenus()) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("click", (event) => {
  for (const menu of openMenus()) if (!menu.contains(event.target)) menu.open = false;
});

// How many are ticked, on the button that saves them.
for (const people of document.querySelectorAll("fieldset.ticks")) {
  const words = people.closest("form")?.querySelector(".keep button span");
  const plain = words?.textContent;
  const count = () => {
    const ticked = people.querySelectorAll(":checked").length;
    words.textContent = ticked ? `${plain} (${ticked})` : plain;
  };
  if (!words) continue;
  people.addEventListener("change", count);
  window.addEventListener("pageshow", count);
}

// Rows of fields: one more, or one a place higher, without going to the server and back. Enter goes on to the next field.
for (const list of document.querySelectorAll(".entries")) {
  const group = list.closest("fieldset"), more = group.querySelector("[name$=-more]"), balance = group.querySelector(".entries-sum output");
  const [from, until] = ["from", "until"].map((name) => balance && document.getElementById(balance.dataset[name]));
  const add = () => {
    if (!balance) return;
    const minutes = [...list.querySelectorAll("[type=number]")].map((field) => field.valueAsNumber || 0);
    const takes = minutes.reduce((all, one) => all + one, 0);
    const lasts = from && until ? (until.valueAsNumber - from.valueAsNumber) / 60000 || 0 : Number(balance.dataset.lasts);
    const rest = lasts - takes;
    const said = balance.dataset[lasts <= 0 ? "alone" : rest > 0 ? "free" : rest ? "over" : "full"];
    const words = said.replace("%(takes)s", takes).replace("%(lasts)s", lasts).replace("%(rest)s", Math.abs(rest));
    if (balance.value !== words) balance.value = words;
  };
  const number = () => {
    [...list.children].forEach((row, at) => {
      for (const one of row.querySelectorAll("*")) {
        for (const name of ["id", "name", "for", "aria-describedby"]) {
          const known = one.getAttribute(name);
          if (known) one.setAttribute(name, known.replace(/-\d+-/, `-${at}-`));
        }
        if (one.matches("label, .entry-number")) one.textContent = one.textContent.replace(/\d+/, at + 1);
        if (one.matches(".move")) [one.value, one.ariaLabel] = [at, one.ariaLabel.replace(/\d+/, at + 1)];
      }
    });
    if (more) more.hidden = list.children.length >= list.dataset.most;
    add();
  };
  group.addEventListener("click", (event) => {
    const pressed = event.target.closest("button"), row = pressed?.closest(".entry");
    if (pressed === more) {
      const fresh = list.lastElementChild.cloneNode(true);
      fresh.classList.remove("invalid");
      for (const wrong of fresh.querySelectorAll(".field-error")) wrong.remove();
      for (const field of fresh.querySelectorAll("input")) {
        for (const name of ["value", "autofocus", "aria-invalid", "aria-describedby"]) field.removeAttribute(name);
        field.value = "";
      }
      list.append(fresh);
      number();
      fresh.querySelector("input").focus();
    } else if (row && pressed.matches(".move")) {
      row.previousElementSibling?.before(row);
      number();
      (row.previousElementSibling ? pressed : row.querySelector("input")).focus();
    } else return;
    event.preventDefault();
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || !event.target.matches("input")) return;
    event.preventDefault();
    const fields = [...list.querySelectorAll("input")], next = fields[fields.indexOf(event.target) + 1];
    if (next) next.focus();
    else if (more && !more.hidden) more.click();
  });
  for (const one of [list, from, until]) one?.addEventListener("input", add);
  window.addEventListener("pageshow", add);
}

// A second press on a slow line must not send a form twice. It may be sent again after going back, or after a while.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 8000);
});

window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
