// Draws the charts of a page once they come into sight, in the colours of the reader's theme.
"use strict";
(async () => {
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const say = (text) => figures.forEach((figure) => {
    figure.querySelector(".plot").innerHTML = "<p></p>";
    figure.querySelector("p").textContent = text;
  });
  if (typeof DecompressionStream === "undefined") {
    say("This browser is too old to draw the curves; any of 2023 or newer does.");
    return;
  }
  const numbers = JSON.parse(await unpack("numbers"));
  const library = document.createElement("script");
  library.textContent = await unpack("plotly");
  document.head.append(library);

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  };
  const faded = (color, share) => `${color}${Math.round(255 * share).toString(16).padStart(2, "0")}`;
  const column = (number) => (number === null ? null : numbers.columns[number]);

  const traces = (spec, color) => spec.lines.flatMap((line) => {
    const x = column(line.x), ink = color(`c${line.color}`);
    const own = {
      type: "scatter", x, y: column(line.y), name: line.name, showlegend: line.name !== "",
      mode: line.mode, line: { color: ink, width: 1.8, dash: line.dash },
      marker: { color: ink, size: 7 }, legendgroup: line.name, connectgaps: false,
    };
    if (line.low === null) return [own];
    const edge = {
      type: "scatter", x, mode: "lines", showlegend: false, hoverinfo: "skip",
      line: { width: 1, color: faded(ink, 0.45), dash: line.dash }, // a spike of one step is seen
      legendgroup: line.name, connectgaps: false,
    };
    return [
      { ...edge, y: column(line.low) },
      { ...edge, y: column(line.high), fill: "tonexty", fillcolor: faded(ink, 0.22) },
      own,
    ];
  });

  const touch = matchMedia("(pointer: coarse)").matches;
  const layout = (spec, color) => {
    const axis = (title, log) => ({
      title: { text: title, standoff: 8 }, type: log ? "log" : "linear", gridcolor: color("line"),
      zerolinecolor: color("line"), linecolor: color("line"), automargin: true,
      exponentformat: title === spec.x ? "SI" : "power",
    });
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "kept",
      font: { color: color("ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      margin: { l: 10, r: 10, t: 8, b: 10 }, hovermode: "x unified",
      hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("accent") },
      dragmode: touch ? false : "zoom",
      legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0 },
      xaxis: axis(spec.x, spec.log_x), yaxis: axis(spec.y, spec.log_y),
      shapes: spec.marks.map(([x]) => ({
        type: "line", xref: "x", x0: x, x1: x, yref: "paper", y0: 0, y1: 1,
        line: { color: color("muted"), width: 1, dash: "dash" },
      })),
      annotations: spec.marks.map(([x, text]) => ({
        x: spec.log_x ? Math.log10(x) : x, xref: "x", y: 1, yref: "paper", text, showarrow: false,
        xanchor: "left", yanchor: "top", textangle: 90, font: { size: 10, color: color("muted") },
      })),
    };
  };
  const options = {
    responsive: true, displaylogo: false, showSendToCloud: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  const drawn = new Set();
  const draw = (figure) => {
    const spec = numbers.charts[Number(figure.dataset.chart)], color = theme();
    drawn.add(figure);
    return Plotly.react(figure.querySelector(".plot"), traces(spec, color), layout(spec, color), options);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  figures.forEach((figure) => {
    watcher.observe(figure);
    figure.querySelectorAll("button[data-axis]").forEach((button) => {
      button.addEventListener("click", () => {
        const spec = numbers.charts[Number(figure.dataset.chart)], name = `log_${button.dataset.axis}`;
        spec[name] = !spec[name];
        button.setAttribute("aria-pressed", String(spec[name]));
        draw(figure);
      });
    });
  });
  const again = () => drawn.forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => figures.forEach(draw));
  document.documentElement.dataset.ready = "true";
})();
