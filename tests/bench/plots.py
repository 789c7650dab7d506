"""The plots, by gnuplot, as SVG."""

import subprocess

PLOT_HEAD = """set terminal svg size 640,400 background rgb 'white' font 'sans,12'
set output '{svg}'
set title '{title}'
set xlabel '{x}'
set ylabel '{y}'
set grid
set key bottom right
set yrange [0:*]
"""


def draw(script, title, name):
    """A run of many minutes is not lost for a plot: gnuplot says what is wrong with it."""
    subprocess.run(["gnuplot"], input=script, text=True, check=False)
    return f"![{title}]({name}.svg)"


def plot(folder, name, title, x, y, lines, log=True):
    """`lines`: {legend: [(x, y)]}"""
    script = PLOT_HEAD.format(svg=folder / f"{name}.svg", title=title, x=x, y=y)
    script += "set logscale x\n" if log else "set style data histogram\n"
    blocks = ""
    for number, points in enumerate(lines.values()):
        blocks += f"$d{number} << E\n" + "".join(f"{a} {b}\n" for a, b in points) + "E\n"
    curves = ", ".join(f"$d{n} using 1:2 with linespoints lw 2 title '{legend}'"
                       for n, legend in enumerate(lines))
    return draw(f"{script}{blocks}plot {curves}\n", title, name)


def bars(folder, result):
    """CPU per request of each proxy: the figure that everything is about."""
    name, title = "cpu", "CPU time per request, keep-alive"
    script = PLOT_HEAD.format(svg=folder / f"{name}.svg", title=title, x="", y="µs")
    script += ("set style data histograms\nset style fill solid 0.8\nset key top left\n"
               "set xtics rotate by -20\n$d << E\n")
    for subject in result.subjects:
        values = [result.median(f"keep-alive, {n} connections", subject) for n in (16, 64)]
        script += f'"{subject}" {values[0]} {values[1]}\n'
    script += ("E\nplot $d using 2:xtic(1) title '16 connections', "
               "'' using 3 title '64 connections'\n")
    return draw(script, title, name)


def plots(result, folder):
    images = [bars(folder, result)]
    if result.connections:
        images.append(plot(folder, "connections", "CPU per request over connections", "connections",
                           "µs", result.connections))
        images.append(plot(folder, "idle", "Memory (PSS) over idle TLS connections",
                           "connections", "MiB", result.idle, log=False))
        for family, points in result.scale.items():
            points = [(max(x, 1) if family == "routes" else x, y) for x, y in points]
            images.append(plot(folder, family.replace(" ", "-"), f"CPU per request over {family}, async",
                               family, "µs", {"async": points}, log=family == "routes"))
    return images
