// The page while cases run: it hears how far they are, takes a newer page when there is one, and asks to stop.
"use strict";
{
  const said = lowmem.byId("live-said");
  const bar = lowmem.byId("live-bar");
  const stop = lowmem.byId("stop");
  // The address has the token, where there is one.
  const events = new EventSource("events" + location.search);
  let shown = Number(lowmem.byId("live").dataset.version);
  let newest = shown;
  let isFetching = false;
  let isHeld = false;
  let isEnded = false;
  let pause = null;

  const update = async () => {
    if (isFetching || isHeld || (pause && !isEnded)) return;
    if (shown === newest) {
      if (isEnded) events.close();
      return;
    }
    isFetching = true;
    const began = performance.now();
    const version = newest;
    let isThere = true;
    try {
      const answer = await fetch(location.href);
      if (!answer.ok) throw new Error(await answer.text());
      lowmem.refresh(await answer.text());
      shown = version;
    } catch (error) {
      isThere = false;
      said.textContent = `There is a newer page, and it did not come: ${error.message}`;
      if (isEnded) events.close();
    }
    isFetching = false;
    // A long page is seldom made, so that most of the machine is left to the cases.
    pause = setTimeout(() => {
      pause = null;
      if (isThere) update();
    }, 4 * (performance.now() - began));
    if (isEnded && isThere) update();
  };

  const tell = (now) => {
    const far = `${now.done} of ${now.total} cases${now.failed ? `, ${now.failed} failed` : ""}`;
    const isWhole = now.done >= now.total;
    said.textContent =
      now.state === "stopping" ? `Stopping: ${far} have ended` : now.state === "ended" ? `${isWhole ? "Done" : "Ended"}: ${far}` : `${far}${now.left ? `, about ${now.left} left` : ""}`;
    bar.max = Math.max(1, now.total);
    bar.value = now.done;
    if (stop) {
      stop.hidden = now.state === "ended";
      stop.disabled = now.state === "stopping";
    }
  };

  events.onmessage = (event) => {
    const now = JSON.parse(event.data);
    tell(now);
    newest = now.version;
    isEnded = now.state === "ended";
    update();
  };
  events.onerror = () => (said.textContent = "No connection: lowmem has ended, or is out of reach. This is the page as it was.");

  if (stop) {
    stop.onclick = async () => {
      stop.disabled = true;
      try {
        // No page of another origin can send this header.
        const answer = await fetch("stop" + location.search, { method: "POST", headers: { "X-Lowmem": "stop" } });
        if (!answer.ok) throw new Error(await answer.text());
      } catch (error) {
        stop.disabled = false;
        said.textContent = `It did not stop: ${error.message}`;
      }
    };
  }

  // What is held, the slider for example, is not taken away.
  addEventListener("pointerdown", () => (isHeld = true));
  for (const end of ["pointerup", "pointercancel", "blur"]) {
    addEventListener(end, () => {
      isHeld = false;
      update();
    });
  }
}
