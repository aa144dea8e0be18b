// The charts of the traffic page: one stream of columns feeds them all, uPlot draws them.

const figures = document.querySelectorAll(".chart");
const ROWS = 180;
// Steps of an axis of bytes.
const POWERS = Array.from({ length: 48 }, (_, i) => 2 ** i);
let columns = {};
let source = null;
let step = 1;

const format = {
  rate: (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(value % 1 ? (value >= 10 ? 1 : 2) : 0)),
  count: (value) => value.toFixed(value % 1 ? 1 : 0),
  ms: (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value.toFixed(value % 1 && value < 10 ? 1 : 0)} ms`),
  bytes: (value) => {
    const units = ["B", "KB", "MB", "GB"];
    const unit = units.findIndex((_, i) => value < 1000 * 1024 ** i || i === 3);
    const scaled = value / 1024 ** unit;
    return `${scaled.toFixed(scaled % 1 && scaled < 10 ? 1 : 0)} ${units[unit]}`;
  },
};

/** A figure of the page and the plot in it. */
class Chart {
  constructor(figure) {
    this.box = figure.querySelector(".plot");
    this.format = format[figure.dataset.unit];
    this.stacked = "stacked" in figure.dataset;
    this.lines = [...figure.querySelectorAll("[data-key]")].map((item) => ({
      key: item.dataset.key,
      tile: item.querySelector(".tile"),
      output: item.querySelector("output"),
    }));
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.box);
    this.build();
  }

  size() {
    return { width: this.box.clientWidth, height: this.box.clientHeight };
  }

  /** Anew, since colours are those of the theme. */
  build() {
    this.plot?.destroy();
    const color = (element) => getComputedStyle(element).backgroundColor;
    const style = getComputedStyle(this.box);
    const [text, grid] = [style.color, style.borderTopColor];
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: `11px ${style.fontFamily}` };
    const fill = (tile) => color(tile).replace(/^rgb\((.*)\)$/, "rgba($1, 0.14)");
    const series = this.lines.map((line, i) => ({
      stroke: color(line.tile),
      fill: this.stacked || i === 0 ? fill(line.tile) : undefined,
      width: 1.5,
      points: { show: true, filter: (plot, at) => lonely(plot.data[at]), size: 4, fill: color(line.tile) },
    }));
    const options = {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, sync: { key: "traffic" } },
      scales: { x: { range: (_, first, last) => [Math.min(last - 60 * step, Math.max(first, last - ROWS * step)), last] }, y: { range: (_, __, most) => [0, Math.max(most * 1.15, this.format === format.bytes ? 1024 : 1)] } },
      axes: [
        { ...axis, grid: { show: false }, size: 24, space: 70, values: (_, times) => times.map(clock) },
        { ...axis, size: 52, space: 34, ...(this.format === format.bytes && { incrs: POWERS }), values: (_, values) => values.map((value) => this.format(value)) },
      ],
      // Stacked areas are drawn from the highest sum down, each over the one behind it.
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    };
    this.plot = new uPlot(options, this.data(), this.box);
  }

  data() {
    const rows = this.lines.map((line) => columns[line.key] ?? []);
    const drawn = this.stacked ? rows.map((_, i) => rows[i].map((value, at) => (value == null ? null : sum(rows.slice(i), at)))) : rows;
    return [columns.at ?? [], ...drawn];
  }

  update() {
    this.plot.setData(this.data());
    this.tell(this.plot.cursor.idx);
  }

  /** The values under the cursor, or the newest ones. */
  tell(at) {
    for (const line of this.lines) {
      const value = columns[line.key]?.at(at ?? -1);
      line.output.value = value == null ? "–" : this.format(value);
    }
  }
}

const sum = (rows, at) => rows.reduce((total, row) => total + (row[at] ?? 0), 0);

/** Points that no line reaches: they are drawn as dots. */
const lonely = (values) => values.flatMap((value, i) => (value != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

const charts = [...figures].map((figure) => new Chart(figure));

function watch(seconds) {
  source?.close();
  step = seconds;
  source = new EventSource(`/console/traffic/events?step=${step}`);
  source.onopen = () => (columns = {});
  source.onmessage = ({ data }) => {
    for (const [key, values] of Object.entries(JSON.parse(data))) {
      columns[key] = [...(columns[key] ?? []), ...values].slice(-ROWS);
    }
    for (const chart of charts) chart.update();
  };
}

const buttons = document.querySelectorAll("[data-step]");
for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    watch(Number(button.dataset.step));
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.build()));
watch(1);
