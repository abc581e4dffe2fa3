/** Numbers and names as people read them. */

/** 67108864 -> "64 MiB". */
export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${Number(count.toFixed(count < 10 ? 1 : 0))} ${units[unit]}`;
}

/** 31.04 -> "31 ms", 1520 -> "1.5 s". */
export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** "cat.jpg", "mask" -> "cat-mask.png". */
export function downloadName(name, kind) {
  return `${name.replace(/\.[^.]*$/, "")}-${kind}.png`;
}

/** `Server-Timing` -> [["decode", 1.2], ...] in ms. */
export function phases(header) {
  return (header ?? "")
    .split(",")
    .map((part) => /^\s*([^;\s]+)\s*;.*?dur=([\d.]+)/.exec(part))
    .filter((found) => found !== null)
    .map(([, name, ms]) => [name, Number(ms)]);
}
