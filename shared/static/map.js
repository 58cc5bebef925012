// The map on a page (`atlas.py` tells it what to show). Leaflet draws it; everything comes from this site, and the background from
// the Kadaster only where the operator switched it on. Without this file the server's drawing and the list say the same.
//
// Marks that would touch are drawn as one, with how many and a ring of their phases; a press comes closer, or lists them when no
// zoom can part them. One mark is a stop for the Tab key: from there the arrow keys go to the next in that direction.

{
  const COUNTRY = [[50.72, 3.3], [53.58, 7.25]];
  const TOUCHING = 46; // pixels between two marks
  const NAMED = 11.5; // the zoom from which an initiative's name stands beside its mark
  const CLEAR = { paddingTopLeft: [80, 40], paddingBottomRight: [40, 56] }; // of buttons and scale, and room for names
  const EXACT = 0, NEAR = 1; // as `atlas.py` numbers them; what is neither stands with its circle
  const CALM = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const SVG = "http://www.w3.org/2000/svg";

  const drawn = (name, facts, ...parts) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    made.append(...parts);
    return made;
  };
  const written = (name, words, ...parts) => {
    const made = document.createElement(name);
    made.append(words, ...parts);
    return made;
  };
  const filled = (words, facts) => words.replace(/\{(\w+)\}/g, (_, name) => facts[name]);
  const fetched = async (address) => {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    return answer.json();
  };

  class Chart {
    constructor(box) {
      this.box = box;
      this.told = JSON.parse(box.dataset.map);
      this.words = this.told.words;
      this.marks = new Map();
      this.shown = new Map(); // key of a group → its marker
    }

    async open() {
      const [outline, places] = await Promise.all([fetched(this.told.outline), fetched(this.told.places)]);
      const { tiles, words } = this.told;
      this.map = L.map(this.box, {
        attributionControl: false, zoomControl: false, scrollWheelZoom: false, keyboardPanDelta: 60,
        minZoom: 5.5, maxZoom: tiles ? 18 : 15, zoomSnap: tiles ? 0.5 : 0.25,
        maxBounds: [[49.5, 1.5], [54.8, 9]], maxBoundsViscosity: 0.8,
        zoomAnimation: !CALM, fadeAnimation: !CALM, markerZoomAnimation: !CALM, inertia: !CALM,
      });
      if (CALM) this.map.panBy = (by, options) => L.Map.prototype.panBy.call(this.map, by, { ...options, animate: false });
      this.box.setAttribute("role", "group");
      this.box.setAttribute("aria-label", this.told.pick ? words.pick : words.map);
      L.control.zoom({ zoomInTitle: words.closer, zoomOutTitle: words.farther }).addTo(this.map);
      L.control.scale({ imperial: false }).addTo(this.map);
      L.geoJSON(outline, { interactive: false, style: { className: "land", weight: 1 } }).addTo(this.map);
      if (tiles) {
        L.tileLayer(tiles, { minZoom: 6, maxNativeZoom: 18, maxZoom: 18, bounds: [[50.5, 3.25], [54, 7.6]] }).addTo(this.map);
        L.control.attribution({ prefix: false }).addAttribution(this.told.credit).addTo(this.map);
      }
      // The page scrolls over a map that nobody uses.
      this.map.on("click focus", () => this.map.scrollWheelZoom.enable());
      this.box.addEventListener("mouseleave", () => this.map.scrollWheelZoom.disable());
      this.box.addEventListener("keydown", (event) => this.pressed(event));
      this.take(places);
      this.view();
      this.map.on("zoomend moveend", () => this.draw());
      // A phone is turned: as long as nobody moved the map, it fits again.
      this.map.on("movestart", () => (this.touched ||= !this.fitting));
      this.map.on("resize", () => this.touched || this.view());
      this.draw();
      document.documentElement.classList.add("has-map");
      this.box.parentElement.classList.add("map-ready");
      if (this.told.choose) this.choose(this.told.choose);
      if (this.told.pick) new Picker(this);
    }

    take({ towns }) {
      this.marks.clear();
      this.towns = towns;
      const byTown = this.told.mark.includes("{town}");
      for (const town of towns) town.home = town.at && L.latLng(town.at[0] / 1e5, town.at[1] / 1e5);
      for (const { town, name: townName, marks } of towns)
        for (const [code, name, phase, kind, north, east, how] of marks) {
          const key = byTown ? `${town}/${code}` : code;
          if (key === this.told.pick?.own) continue; // the one whose place is chosen here
          const at = L.latLng(north / 1e5, east / 1e5);
          const url = filled(this.told.mark, { town: encodeURIComponent(town), code: encodeURIComponent(code) });
          this.marks.set(key, { key, name, townName, at, how, url, phase: this.told.phases[phase], kind: this.told.kinds[kind]?.[1] });
        }
    }

    view() {
      const here = [...this.marks.values()].map((mark) => mark.at);
      const homes = this.towns.filter((town) => town.home).map((town) => town.home);
      const near = here.length ? here : homes;
      this.fitting = true;
      if (!(this.told.fit || this.told.pick) || !near.length) this.map.fitBounds(COUNTRY, { animate: false });
      else this.map.fitBounds(L.latLngBounds(near), { ...CLEAR, maxZoom: 13, animate: false });
      this.fitting = false;
    }

    /** Where buttons and scale lie over the map, in its pixels: as middles, and how far they reach from there. */
    covers() {
      const box = this.box.getBoundingClientRect();
      return [...this.box.querySelectorAll(".leaflet-control")].map((one) => {
        const { left, top, width, height } = one.getBoundingClientRect();
        return { x: left - box.left + width / 2, y: top - box.top + height / 2, wide: width / 2 + 4, high: height / 2 + 4 };
      });
    }

    covered(at) {
      const { x, y } = this.map.latLngToContainerPoint(at);
      return this.covers().some((one) => Math.abs(one.x - x) < one.wide + 16 && Math.abs(one.y - y) < one.high + 16);
    }

    // ---- drawing

    /** The marks in groups that do not touch at this zoom; seen from far, a town's gather where its circle is at home. */
    groups(zoom) {
      const cells = new Map(), groups = [];
      const nearest = (at) => {
        const column = Math.floor(at.x / TOUCHING), row = Math.floor(at.y / TOUCHING);
        let found = null, least = TOUCHING;
        for (let x = column - 1; x <= column + 1; x++)
          for (let y = row - 1; y <= row + 1; y++)
            for (const group of cells.get(`${x} ${y}`) ?? []) {
              const far = group.at.distanceTo(at);
              if (far < least) [found, least] = [group, far];
            }
        return found;
      };
      const gather = (where) => {
        const at = this.map.project(where, zoom);
        const known = nearest(at);
        if (known) return known;
        const group = { at, where, marks: [], homes: [] };
        const cell = `${Math.floor(at.x / TOUCHING)} ${Math.floor(at.y / TOUCHING)}`;
        cells.has(cell) ? cells.get(cell).push(group) : cells.set(cell, [group]);
        groups.push(group);
        return group;
      };
      if (zoom < NAMED) for (const { home, name } of this.towns) if (home) gather(home).homes.push(name);
      for (const mark of this.marks.values()) gather(mark.at).marks.push(mark);
      for (const group of groups) {
        group.key = `${group.marks[0]?.key} ${group.marks.length}`;
        if (group.marks.length === 1) group.where = group.marks[0].at;
      }
      return groups.filter((group) => group.marks.length);
    }

    draw() {
      const bounds = this.map.getBounds().pad(0.2);
      const wanted = new Map();
      for (const group of this.groups(this.map.getZoom())) if (bounds.contains(group.where)) wanted.set(group.key, group);
      let lost = null; // who had the focus, if the drawing takes it away
      for (const [key, marker] of this.shown) {
        const now = wanted.get(key);
        if (now) {
          marker.group = now;
          continue;
        }
        if (marker.getElement() === document.activeElement) lost = marker.group.marks[0].key;
        marker.remove();
        this.shown.delete(key);
      }
      for (const [key, group] of wanted) if (!this.shown.has(key)) this.shown.set(key, this.marker(group));
      if (this.lit) this.light(this.lit);
      this.stop(this.tabStop && this.shown.get(this.tabStop) ? this.tabStop : this.shown.keys().next().value);
      if (lost) (this.markerOf(lost)?.getElement() ?? this.box).focus({ preventScroll: true });
      this.writeNames();
    }

    marker(group) {
      const single = group.marks.length === 1;
      const size = single ? 32 : 40;
      const icon = L.divIcon({ html: single ? this.pin(group.marks[0]) : this.ring(group), className: "map-mark", iconSize: [size, size] });
      const marker = L.marker(group.where, { icon, keyboard: false, riseOnHover: true, bubblingMouseEvents: false }).addTo(this.map);
      marker.group = group;
      const element = marker.getElement();
      element.setAttribute("role", "button");
      element.setAttribute("aria-label", this.label(group));
      element.tabIndex = -1;
      element.addEventListener("focus", () => this.stop(marker.group.key));
      marker.on("click", () => this.openGroup(marker.group));
      return marker;
    }

    pin(mark) {
      const shape = drawn("use", { href: `#pin-${mark.phase[0]}` });
      const around = mark.how === EXACT ? [] : [drawn("circle", { class: "near", r: 9.6 })];
      return drawn("svg", { viewBox: "-10.5 -10.5 21 21", "aria-hidden": "true" }, ...around, shape);
    }

    ring({ marks }) {
      const round = 2 * Math.PI * 17;
      const parts = [drawn("circle", { class: "together", r: 19 })];
      let from = 0;
      for (const [phase] of this.told.phases) {
        const length = (marks.filter((mark) => mark.phase[0] === phase).length / marks.length) * round;
        if (!length) continue;
        const facts = { class: `share share-${phase}`, r: 17, "stroke-dasharray": `${length} ${round}`, "stroke-dashoffset": -from };
        parts.push(drawn("circle", { ...facts, transform: "rotate(-90)" }));
        from += length;
      }
      parts.push(drawn("text", { class: "many", y: 5 }, String(marks.length)));
      return drawn("svg", { viewBox: "-20 -20 40 40", "aria-hidden": "true" }, ...parts);
    }

    label({ marks }) {
      if (marks.length === 1) return `${marks[0].name}, ${marks[0].phase[1]}, ${marks[0].townName}`;
      const towns = [...new Set(marks.map((mark) => mark.townName))];
      const phases = this.told.phases.map(([code, word]) => [word, marks.filter((mark) => mark.phase[0] === code).length]);
      const told = phases.filter(([, n]) => n).map(([word, n]) => `${word} ${n}`);
      return `${filled(this.words.together, { n: marks.length })}: ${towns.slice(0, 4).join(", ")}${towns.length > 4 ? " …" : ""}. ${told.join(", ")}`;
    }

    /** Names of towns, and close by of initiatives, as far as they stand on nothing else, under no button and wholly on the map. */
    writeNames() {
      this.names?.remove();
      this.names = L.layerGroup().addTo(this.map);
      const pixel = (at) => this.map.latLngToContainerPoint(at);
      const marks = [...this.shown.values()].map((marker) => ({ ...pixel(marker.getLatLng()), wide: 17, high: 17 }));
      const taken = [...this.covers(), ...marks];
      // Circles that are one mark from here are named together under it.
      const merged = [...this.shown.values()].map(({ group }) => group).filter(({ homes }) => homes.length > 1);
      const apart = this.towns.filter(({ home, name }) => home && name && !merged.some(({ homes }) => homes.includes(name)));
      const wanted = merged.map(({ homes: [first, ...more], where }) => {
        const name = `${first}${more.length === 1 ? `, ${more[0]}` : ` +${more.length}`}`;
        return ["map-town", name, where, 28];
      });
      wanted.push(...apart.map((town) => ["map-town", town.name, town.home, 28]));
      if (this.map.getZoom() >= NAMED)
        for (const { group } of this.shown.values())
          if (group.marks.length === 1) wanted.push(["map-name", group.marks[0].name, group.marks[0].at, 26]);
      const { x: wide, y: high } = this.map.getSize();
      for (const [kind, name, at, below] of wanted) {
        const { x, y } = pixel(at);
        const own = { x, y: y + below, wide: name.length * 3.9 + 4, high: 8 };
        if (own.x < own.wide || own.x > wide - own.wide || own.y < own.high || own.y > high - own.high) continue;
        if (taken.some((other) => Math.abs(other.x - own.x) < other.wide + own.wide && Math.abs(other.y - own.y) < other.high + own.high)) continue;
        taken.push(own);
        const icon = L.divIcon({ html: written("span", name), className: kind, iconSize: [own.wide * 2, 16], iconAnchor: [own.wide, 8 - below] });
        L.marker(at, { icon, interactive: false, keyboard: false, zIndexOffset: -1000 }).addTo(this.names);
      }
    }

    // ---- choosing

    markerOf(key) {
      return [...this.shown.values()].find((marker) => marker.group.marks.some((mark) => mark.key === key));
    }

    openGroup(group) {
      if (group.marks.length === 1) return this.choose(group.marks[0].key, document.activeElement);
      const bounds = L.latLngBounds(group.marks.map((mark) => mark.at));
      const room = L.point(CLEAR.paddingTopLeft).add(CLEAR.paddingBottomRight);
      const parts = !bounds.getNorthEast().equals(bounds.getSouthWest());
      if (parts && this.map.getZoom() < this.map.getMaxZoom()) {
        if (this.map.getBoundsZoom(bounds, false, room) > this.map.getZoom()) this.map.fitBounds(bounds, CLEAR);
        else this.map.setView(bounds.getCenter(), this.map.getZoom() + 1);
        return;
      }
      const lines = group.marks.slice(0, 30).map((mark) => written("li", this.link(mark)));
      const list = written("ul", "", ...lines);
      const more = group.marks.length - lines.length;
      const rest = more > 0 ? [written("p", filled(this.words.more, { n: more }))] : [];
      this.popup(group.where, document.activeElement, written("strong", filled(this.words.together, { n: group.marks.length })), list, ...rest);
    }

    /** Show this mark by itself, tell what it is, and point at it in the list. `from` gets the focus back. */
    choose(key, from) {
      const mark = this.marks.get(key);
      if (!mark) return;
      this.talk?.close();
      const alone = (zoom) => this.groups(zoom).some((group) => group.marks.length === 1 && group.marks[0] === mark);
      let zoom = this.told.choose ? 13 : this.map.getZoom();
      while (zoom < this.map.getMaxZoom() && !alone(zoom)) zoom++;
      zoom = Math.min(zoom, this.map.getMaxZoom());
      const seen = this.map.getBounds().pad(-0.1).contains(mark.at) && !this.covered(mark.at);
      if (zoom !== this.map.getZoom() || !seen) this.map.setView(mark.at, zoom, { animate: false });
      this.light(key);
      this.pointInList(key);
      if (this.told.choose) return; // the page is about this one
      const phase = written("p", drawn("svg", { viewBox: "-10.5 -10.5 21 21", "aria-hidden": "true" }, drawn("use", { href: `#pin-${mark.phase[0]}` })), mark.phase[1]);
      phase.className = "phase-line";
      const facts = written("p", [mark.kind, this.towns.length > 1 ? mark.townName : ""].filter(Boolean).join(" · "));
      const words = { [EXACT]: "", [NEAR]: this.words.near }[mark.how] ?? this.words.with_circle;
      this.popup(mark.at, from, this.link(mark), phase, facts, ...(words ? [written("p", words)] : []));
    }

    link(mark) {
      const link = written("a", mark.name);
      link.href = mark.url;
      return link;
    }

    popup(at, from, ...parts) {
      const popup = L.popup({ minWidth: 160, maxWidth: 300, autoPanPaddingTopLeft: [72, 12], autoPanPaddingBottomRight: [12, 12], closeOnEscapeKey: false, offset: [0, -6] });
      popup.setLatLng(at).setContent(written("div", "", ...parts)).openOn(this.map);
      popup.from = from;
      this.talk = popup; // before the focus moves: what is told about stays lit
      const element = popup.getElement();
      element.querySelector(".leaflet-popup-close-button").setAttribute("aria-label", this.words.close);
      if (from) element.querySelector("a[href]:not(.leaflet-popup-close-button)").focus({ preventScroll: true });
      popup.on("remove", () => {
        const lost = document.activeElement === document.body || element.contains(document.activeElement);
        if (lost) (from?.isConnected ? from : this.box).focus({ preventScroll: true });
        this.light(null);
        this.pointInList(null);
      });
    }

    light(key) {
      this.lit = key;
      for (const marker of this.shown.values())
        marker.getElement().classList.toggle("lit", key !== null && marker.group.marks.some((mark) => mark.key === key));
    }

    pointInList(key) {
      for (const row of document.querySelectorAll(".row.chosen")) row.classList.remove("chosen");
      const row = key && document.querySelector(`.on-map[data-mark="${CSS.escape(key)}"]`)?.closest(".row");
      if (!row) return;
      row.classList.add("chosen");
      const list = row.closest(".national-list"); // scrolls in itself on a wide screen; the page must not jump
      if (list && list.scrollHeight > list.clientHeight)
        list.scrollTop += row.getBoundingClientRect().top - list.getBoundingClientRect().top - list.clientHeight / 3;
    }

    // ---- keys

    /** Which mark the Tab key stops at. */
    stop(key) {
      this.tabStop = key;
      for (const [other, marker] of this.shown) marker.getElement().tabIndex = other === key ? 0 : -1;
    }

    pressed(event) {
      if (event.key === "Escape" && this.talk?.isOpen()) {
        event.stopPropagation();
        return this.talk.close();
      }
      const here = [...this.shown.values()].find((marker) => marker.getElement() === event.target);
      if (!here) return;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        event.stopPropagation();
        return this.openGroup(here.group);
      }
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      const start = this.map.latLngToContainerPoint(here.getLatLng());
      let best = null, least = Infinity;
      for (const marker of this.shown.values()) {
        const { x, y } = this.map.latLngToContainerPoint(marker.getLatLng()).subtract(start);
        const along = x * way[0] + y * way[1], aside = Math.abs(x * way[1] + y * way[0]);
        if (along > 1 && along + 2 * aside < least) [best, least] = [marker, along + 2 * aside];
      }
      if (!best) return;
      best.getElement().focus({ preventScroll: true });
      if (!this.map.getBounds().contains(best.getLatLng())) this.map.panTo(best.getLatLng());
    }

    async refresh() {
      this.take(await fetched(this.told.places));
      for (const marker of this.shown.values()) marker.remove();
      this.shown.clear();
      this.draw();
    }
  }

  /** A place for a form's field: a press on the map, or the arrow keys and Enter, or whatever is typed. */
  class Picker {
    constructor(chart) {
      this.chart = chart;
      this.told = chart.told.pick;
      this.field = document.getElementById(this.told.field);
      this.status = chart.box.parentElement.querySelector("[role=status]");
      this.radios = this.told.shown ? [...document.getElementsByName(this.told.shown)] : [];
      const middle = written("div", "");
      middle.className = "map-middle";
      chart.box.append(middle);
      chart.map.on("click", (event) => this.pick(event.latlng));
      chart.box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.target !== chart.box) return;
        event.preventDefault(); // not the form's button
        this.pick(chart.map.getCenter());
      });
      this.field.addEventListener("change", () => this.typed());
      for (const radio of this.radios) radio.addEventListener("change", () => this.draw());
      if (this.field.value) this.typed();
    }

    pick(place) {
      const said = `${place.lat.toFixed(5)}, ${place.lng.toFixed(5)}`;
      this.field.value = said;
      this.status.textContent = filled(this.chart.words.picked, { place: said });
      this.at = L.latLng(+place.lat.toFixed(5), +place.lng.toFixed(5));
      this.draw();
    }

    async typed() {
      const said = this.field.value.trim();
      this.at = null;
      this.status.textContent = "";
      if (said) {
        const { words, at } = await fetched(`${this.told.url}?said=${encodeURIComponent(said)}`);
        if (said !== this.field.value.trim()) return; // typed on while we asked
        this.status.textContent = words;
        if (at) {
          this.at = L.latLng(at);
          this.chart.map.setView(this.at, Math.max(this.chart.map.getZoom(), 13), { animate: false });
        }
      }
      this.draw();
    }

    /** The place, and what others will see of it. */
    draw() {
      this.layer?.remove();
      if (!this.at) return;
      this.layer = L.layerGroup().addTo(this.chart.map);
      const pin = drawn("svg", { viewBox: "0 0 24 32", "aria-hidden": "true" },
        drawn("path", { d: "M12 31C5 22 1 17 1 12a11 11 0 0 1 22 0c0 5-4 10-11 19Z" }), drawn("circle", { cx: 12, cy: 12, r: 4 }));
      const icon = L.divIcon({ html: pin, className: "map-chosen", iconSize: [30, 40], iconAnchor: [15, 40] });
      L.marker(this.at, { icon, interactive: false, keyboard: false, zIndexOffset: 1000 }).addTo(this.layer);
      if (this.radios.find((radio) => radio.checked)?.value !== "neighbourhood") return;
      const [high, broad] = this.chart.told.square;
      const south = Math.floor(Math.round(this.at.lat * 1e6) / high) * high, west = Math.floor(Math.round(this.at.lng * 1e6) / broad) * broad;
      const square = [[south / 1e6, west / 1e6], [(south + high) / 1e6, (west + broad) / 1e6]];
      L.rectangle(square, { interactive: false, className: "map-square" }).addTo(this.layer);
    }
  }

  const charts = [...document.querySelectorAll("[data-map]")].map((box) => new Chart(box));
  for (const chart of charts)
    chart.open().catch((error) => {
      chart.box.hidden = true; // the drawing and the list remain
      console.warn(error);
    });

  // The list beside the map: a button shows its mark; a row under the pointer lights it up.
  const markOf = (target) => target.closest?.(".row")?.querySelector(".on-map")?.dataset.mark ?? null;
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".on-map");
    if (!button || !charts[0]?.map) return;
    charts[0].choose(button.dataset.mark, button);
    charts[0].box.scrollIntoView({ block: "nearest", behavior: CALM ? "auto" : "smooth" });
  });
  for (const kind of ["pointerover", "focusin"])
    document.addEventListener(kind, (event) => {
      const [chart] = charts, key = markOf(event.target);
      if (!chart?.map || chart.talk?.isOpen() || key === chart.lit || chart.told.choose) return;
      if (key || chart.lit) chart.light(key);
    });
  document.addEventListener("news", () => charts.forEach((chart) => chart.map && chart.refresh().catch(console.warn)));
}
