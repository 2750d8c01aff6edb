// Draws every [data-plot] by uPlot, in the page's colours, as wide as its place, anew when either changes.
"use strict";
(() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const HEIGHT = 200;

  const short = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
    return String(Number(value.toPrecision(4)));
  };

  const draw = (place) => {
    const plot = JSON.parse(place.dataset.plot);
    const name = (index) => (plot.names ? plot.names[index] ?? "" : short(index));
    const axis = {
      stroke: color("--muted"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const bare = plot.names ? plot.names.map((one) => one.replace(/^span /, "")) : null;
    const series = plot.series.map((one) => {
      const sparse = one.values.filter((value) => value !== null).length < 0.2 * one.values.length || one.values.length < 40;
      const refused = one.label.startsWith("refused");
      return {
        label: one.label,
        stroke: refused ? color("--bad") : color(`--s${one.color % 6}`),
        width: refused ? 0 : 2,
        spanGaps: true,
        points: { show: sparse || refused, size: refused ? 9 : 5, fill: color(refused ? "--bad" : "--surface") },
        value: (_, value) => short(value),
      };
    });
    const last = plot.x.length - 1;
    const options = {
      width: Math.max(place.clientWidth, 200),
      height: HEIGHT,
      scales: { x: { time: false, range: last > 0 ? undefined : [plot.x[0] - 1, plot.x[0] + 1] } },
      legend: { live: true },
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      series: [{ label: plot.xLabel || "x", value: (_, value) => (value === null ? "–" : name(value)) }, ...series],
      axes: [
        {
          ...axis,
          size: 28,
          incrs: bare ? [1, 2, 5, 10, 20, 50, 100, 200, 500] : undefined,
          values: bare ? (_, ticks) => ticks.map((tick) => bare[tick] ?? "") : (_, ticks) => ticks.map(short),
        },
        { ...axis, size: 52, values: (_, ticks) => ticks.map(short) },
      ],
    };
    place.replaceChildren();
    return new uPlot(options, [plot.x, ...plot.series.map((one) => one.values)], place);
  };

  const places = [...document.querySelectorAll("[data-plot]")];
  const drawn = new Map();
  const drawAll = () => places.forEach((place) => drawn.set(place, draw(place)));
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const width = Math.max(target.clientWidth, 200);
      const plot = drawn.get(target);
      if (plot && plot.width !== width) plot.setSize({ width, height: HEIGHT });
    }
  });
  drawAll();
  places.forEach((place) => observer.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
