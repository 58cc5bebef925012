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
