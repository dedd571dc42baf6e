// Draws the map on a canvas and lets the user choose rows: a line drawn around them, a box with Shift, or a click.
// Foreign text reaches the page as text only (fillText, textContent). What `data` holds: see map_chart.py.

const NEAR = 9; // pixels between the pointer and a point that it means
const STEP = 3; // pixels between two corners of a line that is drawn around points
const MOST_CORNERS = 500;

export default function ({ data, parentElement, setTriggerValue }) {
  const find = (name) => parentElement.querySelector(name);
  const [canvas, overlay, tip] = [find("canvas"), find("polygon"), find(".tip")];
  const { left, right, bottom, top } = data.window;
  const points = data.points;
  let drawn = null; // the corners of the line that is being drawn, in pixels of the canvas

  const width = () => canvas.clientWidth;
  const height = () => canvas.clientHeight;
  const toPixels = (share) => [share[0] * width(), (1 - share[1]) * height()];
  const outline = (corners) => overlay.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width() * ratio), Math.round(height() * ratio)];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    if (data.shading) pen.drawImage(shading(data.shading), 0, 0, width(), height());
    lines(pen, data.lines, 1);
    pen.globalAlpha = 0.75;
    points.x.forEach((x, index) => {
      const [at, over] = toPixels([x, points.y[index]]);
      pen.fillStyle = data.legend[points.value[index]][1];
      pen.beginPath();
      pen.arc(at, over, data.radius, 0, 2 * Math.PI);
      pen.fill();
    });
    pen.globalAlpha = 1;
    names(pen);
    lines(pen, data.row_lines, 2);
    if (data.row) {
      pen.strokeStyle = data.line_colour;
      pen.lineWidth = 2.5;
      pen.beginPath();
      pen.arc(...toPixels(data.row), 8, 0, 2 * Math.PI);
      pen.stroke();
    }
    outline((data.selection || []).map(toPixels));
    canvas.dataset.drawings = Number(canvas.dataset.drawings || 0) + 1;
  }

  function lines(pen, ends, thickness) {
    [pen.strokeStyle, pen.lineWidth] = [data.line_colour, thickness];
    pen.beginPath();
    for (const [x, y, x2, y2] of ends) {
      pen.moveTo(...toPixels([x, y]));
      pen.lineTo(...toPixels([x2, y2]));
    }
    pen.stroke();
  }

  function names(pen) {
    const style = getComputedStyle(canvas);
    const font = style.fontFamily;
    const paper = style.getPropertyValue("--st-background-color").trim() || "#ffffff";
    Object.assign(pen, { font: `600 13px ${font}`, textAlign: "center", textBaseline: "middle", lineJoin: "round" });
    for (const [x, y, name] of data.names) {
      const [at, over] = toPixels([x, y]);
      const half = pen.measureText(name).width / 2 + 4;
      const inside = Math.max(half, Math.min(width() - half, at));
      // An edge of the page's own colour makes the letters readable on points, in the light and in the dark theme.
      Object.assign(pen, { strokeStyle: paper, lineWidth: 4, fillStyle: style.color, globalAlpha: 0.8 });
      pen.strokeText(name, inside, over);
      pen.globalAlpha = 1;
      pen.fillText(name, inside, over);
    }
  }

  function nearest(x, y) {
    let [best, distance] = [-1, NEAR ** 2];
    points.x.forEach((share, index) => {
      const [at, over] = toPixels([share, points.y[index]]);
      const squared = (at - x) ** 2 + (over - y) ** 2;
      if (squared <= distance) [best, distance] = [index, squared];
    });
    return best;
  }

  function describe(index, x, y) {
    tip.hidden = index < 0;
    canvas.style.cursor = index < 0 ? "crosshair" : "pointer";
    if (index < 0) return;
    tip.textContent = data.tips.map(([name, values, codes]) => `${name}  ${values[codes[index]]}`).join("\n");
    tip.style.left = `${Math.max(0, Math.min(x + 14, width() - tip.offsetWidth))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > height() ? y - tip.offsetHeight - 8 : y + 18}px`;
  }

  const end = () => {
    drawn = null;
    outline((data.selection || []).map(toPixels));
  };
  canvas.onpointerdown = (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    drawn = [[event.offsetX, event.offsetY]];
    describe(-1);
  };
  canvas.onpointermove = (event) => {
    const [x, y] = [event.offsetX, event.offsetY];
    if (!drawn) return describe(nearest(x, y), x, y);
    const [start, last] = [drawn[0], drawn[drawn.length - 1]];
    if (event.shiftKey) drawn = [start, [x, start[1]], [x, y], [start[0], y]];
    else if (Math.hypot(x - last[0], y - last[1]) >= STEP) drawn.push([x, y]);
    if (drawn.length > MOST_CORNERS) drawn = drawn.filter((_, index) => index % 2 === 0);
    outline(drawn);
  };
  canvas.onpointerup = (event) => {
    if (!drawn) return;
    const corners = drawn;
    const [x, y] = corners[0];
    const isClick = corners.every((corner) => Math.hypot(corner[0] - x, corner[1] - y) < 2 * STEP);
    drawn = null;
    if (!isClick && corners.length > 2) {
      const onMap = ([at, over]) => [
        left + (at / width()) * (right - left),
        top - (over / height()) * (top - bottom),
      ];
      return setTriggerValue("selected", corners.map(onMap));
    }
    end();
    const index = nearest(event.offsetX, event.offsetY);
    if (index >= 0) setTriggerValue("clicked", points.position[index]);
  };
  canvas.onpointercancel = end;
  canvas.onpointerleave = () => describe(-1);

  find("figcaption").textContent = data.title;
  find("ul").replaceChildren(
    ...data.legend.map(([name, colour]) => {
      const entry = document.createElement("li");
      entry.textContent = name;
      entry.style.setProperty("--colour", colour);
      return entry;
    }),
  );
  tip.hidden = true;
  const observer = new ResizeObserver(draw); // draws once when it begins to observe
  observer.observe(canvas);
  return () => observer.disconnect();
}

function shading({ columns, lines, shades }) {
  const image = new ImageData(columns, lines);
  shades.forEach((shade, cell) => image.data.set([138, 138, 138, shade], 4 * cell));
  const cells = document.createElement("canvas");
  [cells.width, cells.height] = [columns, lines];
  cells.getContext("2d").putImageData(image, 0, 0);
  return cells;
}
