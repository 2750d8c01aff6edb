// Loads the overview anew when something happened in the store.
"use strict";
(() => {
  const seen = document.body.dataset.pulse;
  if (!seen) return;
  const look = async () => {
    try {
      const answer = await fetch("/pulse", { cache: "no-store" });
      if (answer.ok && (await answer.json()).pulse !== seen) location.reload();
    } catch {
      // The server was stopped; the page stays readable.
    }
  };
  setInterval(() => document.hidden || look(), 10_000);
})();
