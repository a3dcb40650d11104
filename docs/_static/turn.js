// Shapes that turn, by themselves and by hand: <canvas class="turn" data-points="..." data-colours="[...]">.
// data-points: base64 of int16, x y z of each point, 32767 is 1. With data-colours (one a step) the points are joined by a line.
// Nothing is loaded from anywhere.
"use strict";
(() => {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  function points(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer), found = [];
    for (let i = 0; i + 5 < bytes.length; i += 6) {
      found.push([0, 2, 4].map((k) => view.getInt16(i + k, true) / 32767));
    }
    return found;
  }

  function start(canvas) {
    const P = points(canvas.dataset.points), colours = canvas.dataset.colours ? JSON.parse(canvas.dataset.colours) : null;
    const pen = canvas.getContext("2d"), size = canvas.width, half = size / 2, scale = 0.47 * size;
    let turn = 0.6, tip = 0.35, held = false, seen = true, last = null;

    function seenFrom(p) {
      const [x, y, z] = p, u = x * Math.cos(turn) - z * Math.sin(turn), w = x * Math.sin(turn) + z * Math.cos(turn);
      return [half + scale * u, half - scale * (y * Math.cos(tip) - w * Math.sin(tip)), y * Math.sin(tip) + w * Math.cos(tip)];
    }

    function draw() {
      pen.clearRect(0, 0, size, size);
      const q = P.map(seenFrom);
      if (colours) {
        pen.lineCap = "round";
        const steps = [...colours.keys()].sort((i, j) => q[i][2] + q[i + 1][2] - q[j][2] - q[j + 1][2]);
        for (const i of steps) {
          for (const [colour, width] of [["#fff", size / 40], [colours[i], size / 60]]) {
            pen.strokeStyle = colour;
            pen.lineWidth = width;
            pen.beginPath();
            pen.moveTo(q[i][0], q[i][1]);
            pen.lineTo(q[i + 1][0], q[i + 1][1]);
            pen.stroke();
          }
        }
        return;
      }
      q.sort((a, b) => a[2] - b[2]);
      for (const [x, y, depth] of q) {
        const near = Math.min(1, Math.max(0, (depth + 1) / 2));
        pen.fillStyle = `rgb(${190 - 174 * near},${208 - 154 * near},${228 - 120 * near})`;
        pen.fillRect(x - 1, y - 1, 2.5, 2.5);
      }
    }

    canvas.addEventListener("pointerdown", (e) => { held = true; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointerup", () => { held = false; });
    canvas.addEventListener("pointercancel", () => { held = false; });
    canvas.addEventListener("pointermove", (e) => {
      if (held) { turn -= e.movementX / 80; tip += e.movementY / 80; draw(); }
    });
    new IntersectionObserver((entries) => { seen = entries[0].isIntersecting; }).observe(canvas);
    function frame(now) {
      if (seen && !held && last !== null) { turn += (now - last) / 4000; draw(); }
      last = now;
      requestAnimationFrame(frame);
    }
    draw();
    if (!still) requestAnimationFrame(frame);
  }

  document.querySelectorAll("canvas.turn").forEach(start);
})();
