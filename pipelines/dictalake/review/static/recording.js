// The player of one recording. Times are seconds. The sound comes in pieces, as the browser asks for them.

const player = document.querySelector(".player");
if (player) begin(player);

function begin(player) {
  const at = (id) => document.getElementById(id);
  const audio = at("audio"), recording = player.dataset.recording;
  const words = [...document.querySelectorAll(".w")].map((node) => ({
    node, start: Number(node.dataset.s), end: Number(node.dataset.e), group: node.parentNode.id,
  }));
  const groups = Map.groupBy ? Map.groupBy(words, (word) => word.group) : groupBy(words);
  for (const list of groups.values()) list.sort((a, b) => a.start - b.start);
  let known = null, loop = null, lit = [];

  load();

  async function load() {
    for (;;) {
      let answer;
      try {
        const response = await fetch(`/sound/${recording}/wave.json`);
        answer = response.ok ? await response.json() : { state: "failed", why: "The server does not give it." };
      } catch {
        answer = { state: "failed", why: "The server cannot be reached." };
      }
      if (answer.state === "loading") continue;
      if (answer.state === "failed") {
        at("sound-state").textContent = `No sound. ${answer.why}`;
        return;
      }
      known = answer;
      break;
    }
    const options = known.channels > 1 ? ["mix", ...Array(known.channels).keys()] : [0];
    for (const one of options) {
      const option = document.createElement("option");
      option.value = one;
      option.textContent = one === "mix" ? "all" : `${one + 1}`;
      at("channel").append(option);
    }
    at("channel-label").hidden = known.channels < 2;
    choose(options[0]);
    at("seek").max = known.duration_s;
    for (const id of ["play", "back", "forward", "slower", "faster", "loop", "seek"]) at(id).disabled = false;
    at("sound-state").textContent = "The sound is ready.";
    drawWave();
    show();
  }

  function choose(channel) {
    const time = audio.currentTime || 0, rate = audio.playbackRate, plays = !audio.paused;
    audio.src = `/sound/${recording}/${channel}.wav`;
    audio.playbackRate = audio.defaultPlaybackRate = rate;
    if (time) audio.addEventListener("loadedmetadata", () => { audio.currentTime = time; }, { once: true });
    if (plays) start();
  }

  function start() { audio.play().catch(() => {}); } // it rejects where a pause comes first; "error" tells of the rest
  function play() { known && (audio.paused ? start() : audio.pause()); }
  function seek(time) {
    if (!known) return;
    audio.currentTime = Math.min(Math.max(0, time), known.duration_s);
    show();
  }
  function speed(step) {
    const rate = Math.min(2.5, Math.max(0.4, Math.round((audio.playbackRate + step) * 10) / 10));
    audio.playbackRate = audio.defaultPlaybackRate = rate;
    at("speed").textContent = `${rate.toFixed(1)}×`;
  }
  function toggleLoop() {
    const now = audio.currentTime;
    loop = loop ? null : { start: Math.max(0, now - 5), end: Math.max(now, 1) };
    at("loop").setAttribute("aria-pressed", String(Boolean(loop)));
    if (loop) seek(loop.start);
  }
  function hear(word) {
    seek(word.start);
    if (audio.paused) start();
  }
  function step(direction) {
    const list = groups.get("machine") || words;
    const now = audio.currentTime;
    const next = direction > 0 ? list.find((word) => word.start > now + 0.01)
      : list.findLast((word) => word.start < now - 0.3);
    if (next) seek(next.start);
  }

  function findLit(list, now) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].start <= now + 0.005) low = middle + 1; else high = middle;
    }
    const word = list[low - 1];
    return word && now <= word.end + 0.25 ? word : null;
  }
  function show() {
    const now = audio.currentTime;
    if (loop && now >= loop.end) audio.currentTime = loop.start;
    const found = [...groups.values()].map((list) => findLit(list, now)).filter(Boolean);
    for (const word of lit) if (!found.includes(word)) word.node.classList.remove("lit");
    for (const word of found) word.node.classList.add("lit");
    lit = found;
    at("clock").textContent = `${Math.floor(now / 60)}:${(now % 60).toFixed(1).padStart(4, "0")}`;
    at("seek").value = now;
    at("seek").setAttribute("aria-valuetext", at("clock").textContent);
    moveCursor(now);
  }
  function follow() {
    show();
    if (!audio.paused && !audio.ended) requestAnimationFrame(follow);
  }

  const canvas = document.createElement("canvas");
  let picture = null;
  function drawWave() {
    at("wave").replaceChildren(canvas);
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, canvas.clientWidth * scale);
    canvas.height = canvas.clientHeight * scale;
    const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { width, height } = canvas, across = (time) => (time / Math.max(known.duration_s, 0.001)) * width;
    const lanes = known.peaks.length, lane = (height - 10 * scale) / lanes;
    context.clearRect(0, 0, width, height);
    context.fillStyle = colour("wave");
    known.peaks.forEach((peaks, channel) => {
      const middle = lane * (channel + 0.5), thick = Math.max(scale, width / peaks.length);
      peaks.forEach((peak, place) => {
        const size = Math.max(scale, (Math.sqrt(peak / 100) * lane) / 1.1);
        context.fillRect((place / peaks.length) * width, middle - size / 2, thick * 0.8, size);
      });
    });
    const mark = (spans, name, top, tall) => {
      context.fillStyle = colour(name);
      for (const [start, end] of spans) context.fillRect(across(start), top, Math.max(2, across(end) - across(start)), tall);
    };
    mark(known.speech.flat(), "speech", height - 8 * scale, 4 * scale);
    mark(known.uncovered, "uncovered", height - 8 * scale, 8 * scale);
    mark(known.holes, "hole", 0, height);
    picture = context.getImageData(0, 0, width, height);
    moveCursor(audio.currentTime);
  }
  function moveCursor(now) {
    if (!picture) return;
    const context = canvas.getContext("2d");
    context.putImageData(picture, 0, 0);
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--cursor").trim();
    context.fillRect((now / Math.max(known.duration_s, 0.001)) * canvas.width, 0, 2 * (window.devicePixelRatio || 1), canvas.height);
  }

  for (const name of ["timeupdate", "seeked", "loadedmetadata", "pause"]) audio.addEventListener(name, show);
  audio.addEventListener("play", () => { at("play").textContent = "Pause"; follow(); });
  for (const name of ["pause", "ended"]) audio.addEventListener(name, () => { at("play").textContent = "Play"; });
  audio.addEventListener("error", () => { at("sound-state").textContent = "The sound stopped. Reload the page."; });
  at("play").addEventListener("click", play);
  at("back").addEventListener("click", () => seek(audio.currentTime - 2));
  at("forward").addEventListener("click", () => seek(audio.currentTime + 2));
  at("slower").addEventListener("click", () => speed(-0.1));
  at("faster").addEventListener("click", () => speed(0.1));
  at("loop").addEventListener("click", toggleLoop);
  at("seek").addEventListener("input", () => seek(Number(at("seek").value)));
  at("channel").addEventListener("change", () => choose(at("channel").value));
  canvas.addEventListener("click", (event) => seek((event.offsetX / canvas.clientWidth) * known.duration_s));
  for (const word of words) word.node.addEventListener("click", () => hear(word));
  for (const button of document.querySelectorAll("button.quote")) {
    const { text, first, last, s } = button.dataset;
    const quoted = [...at(text).children].slice(Number(first), Number(last) + 1);
    const light = (isOn) => quoted.forEach((node) => node.classList.toggle("quoted", isOn));
    for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => light(true));
    for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => light(button.matches(":hover, :focus")));
    button.addEventListener("click", () => {
      light(true);
      quoted[0]?.scrollIntoView({ block: "nearest" });
      if (s !== undefined) hear({ start: Number(s) });
    });
  }
  window.addEventListener("resize", () => known && drawWave());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => known && drawWave());

  const keys = {
    Escape: play, F1: () => seek(audio.currentTime - 2), F2: () => seek(audio.currentTime + 2),
    F3: () => speed(-0.1), F4: () => speed(0.1), F8: toggleLoop,
  };
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest && event.target.closest("textarea, input, select, button, summary, a");
    if (event.ctrlKey && event.key === "Enter") at("correction").requestSubmit();
    else if (event.altKey && event.key === "ArrowLeft") step(-1);
    else if (event.altKey && event.key === "ArrowRight") step(1);
    else if (event.key === " " && !writes) play();
    else if (keys[event.key] && !event.ctrlKey && !event.altKey && !event.metaKey) keys[event.key]();
    else return;
    event.preventDefault();
  });
}

function groupBy(words) {
  const groups = new Map();
  for (const word of words) groups.set(word.group, [...(groups.get(word.group) || []), word]);
  return groups;
}
