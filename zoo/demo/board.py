"""A board on which things are dragged: it shows the numbers of the page's fields, and writes into them."""

from __future__ import annotations

import html
from typing import Any

from zoo.contract.page import Board, Handle
from zoo.extras import need

#: pixels of the board's longer side
SIDE = 384
#: how far a thing's grip for turning lies from it, in the board's units, and how large it is
AWAY, GRIP = 26, 11
CSS = """
svg { touch-action: none; border: 1px solid var(--border-color-primary); background: #fff; max-width: 100%; }
g { cursor: grab; }
g.held { cursor: grabbing; opacity: 0.8; }
.turn { fill: #fff; stroke: #333; stroke-width: 3; }
text { font: 14px system-ui, sans-serif; fill: #111; pointer-events: none; }
"""
# The fields hold the truth: what is dragged is written into them as if it were typed, and things lie where the fields say. They
# are read again and again, since a field that the server changes tells nobody.
JS = """
const svg = () => element.querySelector("svg");
const field = id => id && document.querySelector("#" + CSS.escape(id) + " input");
const number = id => { const found = field(id); return found ? Number(found.value) : 0; };
const write = (id, value) => {
  const found = field(id);
  if (!found) return;
  const low = found.min === "" ? -Infinity : Number(found.min), high = found.max === "" ? Infinity : Number(found.max);
  found.value = Math.round(Math.min(Math.max(value, low), high));
  found.dispatchEvent(new Event("input", { bubbles: true }));
};
const place = () => {
  for (const g of element.querySelectorAll("g[data-x]")) {
    const d = g.dataset, turned = `rotate(${number(d.angle)} ${d.px} ${d.py})`;
    const there = `translate(${number(d.x)} ${number(d.y)}) ${turned}`;
    if (g.getAttribute("transform") != there) g.setAttribute("transform", there);
  }
};
const at = event => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg().getScreenCTM().inverse());
let held = null;
element.addEventListener("pointerdown", event => {
  const g = event.target.closest("g[data-x]");
  if (!g) return;
  event.preventDefault();
  const from = at(event), d = g.dataset;
  held = { g, turns: event.target.classList.contains("turn"), dx: number(d.x) - from.x, dy: number(d.y) - from.y };
  g.classList.add("held");
});
const moved = event => {
  if (!held) return;
  const to = at(event), d = held.g.dataset;
  if (held.turns) {
    const away = Math.atan2(to.y - number(d.y) - Number(d.py), to.x - number(d.x) - Number(d.px)) * 180 / Math.PI - 90;
    write(d.angle, away <= -180 ? away + 360 : away);
  } else {
    write(d.x, to.x + held.dx);
    write(d.y, to.y + held.dy);
  }
  place();
};
const ended = () => { if (held) held.g.classList.remove("held"); held = null; };
window.addEventListener("pointermove", moved);
window.addEventListener("pointerup", ended);
window.addEventListener("pointercancel", ended);
setInterval(() => { if (element.offsetParent && !held) place(); }, 200);
place();
"""


def drawing(board: Board | None, prefix: str) -> str:
    """A board as SVG.

    Args:
        prefix: before the names of the questions, in the ids of their fields.
    """
    if board is None:
        return ""
    scale = SIDE / max(board.width, board.height)
    size = f'width="{board.width * scale:g}" height="{board.height * scale:g}" viewBox="0 0 {board.width:g} {board.height:g}"'
    return f"<svg {size}>{''.join(_thing(h, prefix) for h in board.handles)}</svg>"


def _thing(handle: Handle, prefix: str) -> str:
    x, y = handle.pivot
    corners = " ".join(f"{a:g},{b:g}" for a, b in handle.outline)
    low = max(b for _, b in handle.outline)
    fields = {"x": prefix + handle.x, "y": prefix + handle.y, "angle": prefix + handle.angle if handle.angle else ""}
    data = " ".join(f'data-{k}="{html.escape(str(v))}"' for k, v in {**fields, "px": x, "py": y}.items())
    turn = (
        f'<line x1="{x:g}" y1="{low:g}" x2="{x:g}" y2="{low + AWAY:g}" stroke="#333" stroke-width="3" />'
        f'<circle class="turn" cx="{x:g}" cy="{low + AWAY:g}" r="{GRIP}" />'
        if handle.angle
        else ""
    )
    label = f'<text x="{x:g}" y="{y:g}" text-anchor="middle">{html.escape(handle.label)}</text>'
    shape = f'<polygon points="{corners}" fill="{html.escape(handle.colour)}" stroke="#333" />'
    return f"<g {data}>{shape}{turn}{label}</g>"


def part(board: Board | None, prefix: str, name: str) -> Any:
    """A board as a part of the page, hidden where there is none.

    Args:
        prefix: see `drawing`. name: its id.
    """
    return need("gradio", "demo").HTML(
        drawing(board, prefix), visible=board is not None, css_template=CSS, js_on_load=JS, elem_id=name
    )
