// Keeps the national view true while it is open: asks every second whether anything changed, and only then for the new parts.
// Without this file the page shows what was true when it was opened.

const written = new Intl.NumberFormat(document.documentElement.lang);
let tag = null;
let wait = 1000;

async function refresh() {
  const page = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!page.ok) return;
  const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    if (part.contains(document.activeElement) || part.querySelector("details[open]")) continue; // not while somebody is at it
    const now = fresh.getElementById(part.id);
    if (now && now.innerHTML !== part.innerHTML) part.innerHTML = now.innerHTML;
  }
  document.dispatchEvent(new Event("news")); // for the map
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/numbers.json", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      wait = 1000;
      if (answer.status === 200) {
        const first = tag === null;
        tag = answer.headers.get("ETag");
        const { version, counts } = await answer.json();
        for (const place of document.querySelectorAll("[data-count]")) {
          const count = counts[place.dataset.count];
          if (count !== undefined) place.textContent = written.format(count);
        }
        if (!first || String(version) !== document.querySelector("[data-version]").dataset.version) await refresh();
      }
    } catch {
      wait = Math.min(wait * 2, 30000); // the line is down: ask less often
    }
  }
  setTimeout(look, wait);
}

setTimeout(look, wait);
