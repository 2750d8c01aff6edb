// Draws every [data-graph] as SVG, laid out by dagre: nodes are links where there are pages, else they open details.
"use strict";
(() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const HEIGHT = 44, LONGEST = 24;

  const element = (name, attributes, ...children) => {
    const made = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const shortened = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

  const layOut = (data) => {
    const graph = new dagre.graphlib.Graph();
    graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 36, marginx: 16, marginy: 16 });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const node of data.nodes) {
      const letters = Math.max(shortened(node.title).length * 7.4, shortened(node.text).length * 6.4);
      graph.setNode(node.id, { width: Math.max(84, letters + 22), height: HEIGHT });
    }
    for (const edge of data.edges) graph.setEdge(edge.from, edge.to);
    dagre.layout(graph);
    return graph;
  };

  const path = (points) => {
    const [first, ...rest] = points;
    let text = `M${first.x},${first.y}`;
    for (let i = 0; i < rest.length - 1; i += 1) {
      const middle = { x: (rest[i].x + rest[i + 1].x) / 2, y: (rest[i].y + rest[i + 1].y) / 2 };
      const end = i === rest.length - 2 ? rest[i + 1] : middle;
      text += `Q${rest[i].x},${rest[i].y} ${end.x},${end.y}`;
    }
    return rest.length === 1 ? `${text}L${rest[0].x},${rest[0].y}` : text;
  };

  const show = (place, node) => {
    const panel = place.parentElement.querySelector(".node-details");
    const title = document.createElement("strong");
    title.textContent = `${node.title} ${node.text}`;
    const list = document.createElement("dl");
    list.className = "values";
    for (const [name, value] of node.details) {
      const term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      list.append(term, text);
    }
    panel.replaceChildren(title, list);
    place.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
    place.querySelector(`[data-id="${node.id}"]`).classList.add("chosen");
  };

  const draw = (place, number) => {
    const data = JSON.parse(place.dataset.graph);
    const graph = layOut(data);
    // dagre's own height leaves out the edges, which may run above and below all nodes.
    const { width } = graph.graph();
    const ys = data.edges.flatMap((edge) => graph.edge(edge.from, edge.to).points.map((point) => point.y));
    const top = Math.min(0, ...ys.map((y) => y - 8));
    const height = Math.max(graph.graph().height, ...ys.map((y) => y + 8)) - top;
    const arrow = `arrow${number}`;
    const marker = element(
      "marker",
      { id: arrow, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
      element("path", { d: "M0,0L8,4L0,8z", class: "arrow" }),
    );
    const picture = element("svg", { width, height, viewBox: `0 ${top} ${width} ${height}` }, element("defs", {}, marker));
    for (const edge of data.edges) {
      const { points } = graph.edge(edge.from, edge.to);
      const line = element("path", { d: path(points), class: "edge", "marker-end": `url(#${arrow})` });
      line.append(element("title", {}, edge.label));
      picture.append(line);
    }
    for (const node of data.nodes) {
      const { x, y, width: wide } = graph.node(node.id);
      const left = x - wide / 2;
      const name = `${node.title} ${node.text}${node.kind === "gone" ? ", files gone" : ""}`;
      const attributes = { class: `node ${node.kind}${node.chosen ? " chosen" : ""}`, "data-id": node.id, "aria-label": name };
      const shape = node.href
        ? element("a", { ...attributes, href: node.href })
        : element("g", { ...attributes, tabindex: 0, role: "button" });
      const round = node.kind === "execution" ? 4 : 14;
      shape.append(
        element("title", {}, name),
        element("rect", { class: "box", x: left, y: y - HEIGHT / 2, width: wide, height: HEIGHT, rx: round }),
        element("text", { x: left + 11, y: y - 3 }, shortened(node.title)),
        element("text", { x: left + 11, y: y + 13, class: "sub" }, shortened(node.text)),
      );
      if (!node.href) {
        shape.addEventListener("click", () => show(place, node));
        shape.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            show(place, node);
          }
        });
      }
      picture.append(shape);
    }
    const scale = (factor) => {
      picture.setAttribute("width", width * factor);
      picture.setAttribute("height", height * factor);
    };
    const fit = () => Math.min(1, (place.clientWidth - 2) / width);
    let factor = 1;
    const zoom = (to) => {
      factor = Math.max(Math.min(fit(), 0.4), Math.min(2, to));
      scale(factor);
    };
    const tools = document.createElement("div");
    tools.className = "tools";
    for (const [text, label, act] of [
      ["−", "Smaller", () => zoom(factor / 1.25)],
      ["+", "Larger", () => zoom(factor * 1.25)],
      ["Whole", "The whole graph", () => zoom(fit())],
    ]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", label);
      button.addEventListener("click", act);
      tools.append(button);
    }
    place.replaceChildren(picture);
    place.before(tools);
    const chosen = data.nodes.find((node) => node.chosen);
    // What it led to is at the right end; where one node is looked at, that stays in the middle.
    place.scrollLeft = chosen ? graph.node(chosen.id).x - place.clientWidth / 2 : width;
    place.scrollTop = chosen ? graph.node(chosen.id).y - top - place.clientHeight / 2 : 0;
  };

  document.querySelectorAll("[data-graph]").forEach(draw);
})();
