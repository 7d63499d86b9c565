"use strict";
// Draws the charts the page carries as JSON; after a zoom every panel fits what is in view.
const charts = [];
const config = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
};

function extent(traces, from, to) {
  let low = Infinity, high = -Infinity;
  for (const trace of traces) {
    const lows = trace.low || trace.y, highs = trace.high || trace.y;
    for (let k = 0; k < trace.x.length; k++) {
      if (trace.x[k] === null || trace.x[k] < from || trace.x[k] > to) continue;
      if (lows[k] < low) low = lows[k];
      if (highs[k] > high) high = highs[k];
    }
  }
  return [low, high];
}

function fit(chart) {
  const range = chart._fullLayout.xaxis.range.map((x) => Date.parse(x.replace(" ", "T") + "Z"));
  const update = {};
  for (const name of Object.keys(chart.layout).filter((key) => key.startsWith("yaxis"))) {
    if (chart.layout[name].visible === false) continue;
    const axis = name.replace("axis", "");
    const traces = chart.data.filter((t) => t.yaxis === axis && t.visible !== "legendonly");
    const [low, high] = extent(traces, range[0], range[1]);
    if (low > high) continue;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.01 || 1;
    update[name + ".range"] = [low - room, high + room];
  }
  return Plotly.update(chart, { "marker.size": markerSize(chart, range) }, update, marked(chart));
}

function marked(chart) {
  return chart.data.map((t, k) => (t.mode === "markers" && t.text ? k : -1)).filter((k) => k >= 0);
}

function markerSize(chart, [from, to]) {
  let seen = 0;
  for (const k of marked(chart)) seen += chart.data[k].x.filter((x) => x >= from && x <= to).length;
  return seen < 300 ? 10 : seen < 1000 ? 7 : 4;
}

// Numbers in cells that are too narrow for them would run into each other.
function thin(chart, spec) {
  for (const trace of spec.data) {
    const crowded = trace.type === "heatmap" && chart.clientWidth - 160 < 30 * trace.x.length;
    if (trace.texttemplate && crowded) delete trace.texttemplate;
  }
}

for (const script of document.querySelectorAll("script[data-chart]")) {
  const chart = document.getElementById(script.dataset.chart);
  const spec = JSON.parse(script.textContent);
  const bar = chart.id === "market" ? "hover" : false;
  thin(chart, spec);
  Plotly.newPlot(chart, spec.data, spec.layout, { ...config, displayModeBar: bar });
  charts.push(chart);
}

const market = document.getElementById("market");
if (market) {
  const whole = market.layout.xaxis.range.slice();
  market.on("plotly_relayout", (change) => {
    const keys = Object.keys(change);
    if (keys.includes("xaxis.autorange")) Plotly.relayout(market, { "xaxis.range": whole.slice() });
    else if (keys.some((key) => key.startsWith("xaxis.range"))) fit(market);
  });
}

window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  charts.forEach((chart) => Plotly.Plots.resize(chart));
});
