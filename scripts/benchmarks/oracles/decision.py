"""Drift diffusion against pyddm, and both against series summed in 50 digits.

    python scripts/benchmarks/oracles/decision.py --peer PYTHON

PYTHON is the interpreter of an environment with pyddm (0.9.0 needs paranoid-scientist too).
Parameters are drawn here; the peer answers in a process of its own. Printed are the largest
differences of densities, distribution functions and slopes from the series, and how long a million
log densities with their slopes take, one thread, in turns with the peer.
"""

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import torch

from clinode.behavior import DDM, FirstPassage, Trials, Wiener

PEER = """
import json, logging, sys, time
import numpy as np
from importlib.metadata import version
import pyddm
from pyddm.analytic import analytic_ddm
logging.disable(logging.WARNING)
asked = json.load(open(sys.argv[1]))
told = {name: version(name) for name in ("pyddm", "numpy", "scipy")}
def best(call, n):
    took = []
    for _ in range(n):
        begun = time.process_time()
        call()
        took.append(time.process_time() - begun)
    return min(took)
def model(v, a, w, t0, dx, dt, end, ic=None, overlay=None, bound=None):
    return pyddm.Model(drift=pyddm.DriftConstant(drift=v), noise=pyddm.NoiseConstant(noise=1),
                       bound=bound or pyddm.BoundConstant(B=a / 2),
                       IC=ic or pyddm.ICPoint(x0=(w - .5) * a), dx=dx, dt=dt, T_dur=end,
                       overlay=overlay or pyddm.OverlayNonDecision(nondectime=t0))
def both(solution, every=1):
    return [np.asarray(solution.pdf(side))[::every].tolist() for side in ("_top", "_bottom")]
if asked["what"] == "densities":
    told["found"] = [
        [np.asarray(analytic_ddm(d["v"], 1.0, d["a"] / 2, np.arange(d["n"]) * d["dt"],
                                 shift=d["w"], force_python=python)).tolist()
         for python in (False, True)] for d in asked["draws"]]
    told["solved"] = [both(model(d["v"], d["a"], d["w"], 0.0, d["a"] / 200, d["dt"] / 40,
                                 (d["n"] - 1) * d["dt"]).solve_analytical(), 40)
                      for d in asked["draws"]]
elif asked["what"] == "variants":
    told["found"] = []
    for d in asked["draws"]:
        v, a, w, t0, end, dt = d["v"], d["a"], d["w"], d["t0"], d["end"], d["dt"]
        dx = a / 1000
        kinds = {"start": {"ic": pyddm.ICRange(sz=d["sz"] * a / 2)},
                 "non-decision": {"overlay": pyddm.OverlayNonDecisionUniform(
                     nondectime=t0, halfwidth=d["st"] / 2)}}
        at = {"start": .5, "non-decision": w}
        told["found"].append({name: both(model(v, a, at[name], t0, dx, dt, end, **own)
                                         .solve_numerical_c()) for name, own in kinds.items()})
elif asked["what"] == "collapsing":
    told["found"] = []
    for d in asked["draws"]:
        a = d["a"]
        own = model(d["v"], a, d["w"], 0.0, a / 200, d["dt"], d["end"],
                    bound=pyddm.BoundCollapsingLinear(B=a / 2, t=d["slope"]))
        begun = time.process_time()
        solved = both(own.solve_numerical_c())
        took = time.process_time() - begun
        told["found"].append({"analytical": both(own.solve_analytical()), "numerical": solved,
                              "seconds": took})
else:
    n, dt, end = asked["n"], .005, 2.5
    draw = np.random.default_rng(asked["seed"])
    data = np.c_[.35 + 2 * draw.random(n), draw.random(n) < .6]
    times = data[:, 0] - .3
    told["python"] = best(lambda: analytic_ddm(1., 1., .75, times.copy(), shift=.45,
                                               force_python=True), 3)
    grid = np.linspace(0, 2.2, n)
    told["compiled"] = best(lambda: analytic_ddm(1., 1., .75, grid, shift=.45), 3)
    own = model(1., 1.5, .45, .3, .005, dt, end)
    told["solve"] = best(lambda: [own.solve_analytical() for _ in range(50)], 3) / 50
    data[:, 0] = np.round(data[:, 0] / dt) * dt
    loss = pyddm.LossLikelihood(sample=pyddm.Sample.from_numpy_array(data, []), dt=dt, T_dur=end,
                                method="analytical")
    told["table"] = best(lambda: loss.loss(own), 3)
print(json.dumps(told))
"""

SHARES = (0.01, 0.05, 0.2, 0.29, 0.31, 0.7, 1.5, 3.0)  # of a^2: times that are compared
AT = (1.0, 1.5, 0.45, 0.3)  # drift, bound, start, non-decision time of what is timed
mpmath.mp.dps = 50


def main():
    """Draw, ask both, print the largest differences and the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, help="interpreter with pyddm")
    parser.add_argument("--draws", type=int, default=300, help="of the densities")
    parser.add_argument("--trials", type=int, default=1_000_000, help="of the timing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = np.random.default_rng(args.seed)
    for part in (densities, slopes, variants, collapsing, speed):
        part(args, draw)


def ask(peer: str, **asked):
    """What the peer says."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "asked.json"
        path.write_text(json.dumps(asked))
        told = subprocess.run(
            [peer, "-W", "ignore", "-c", PEER, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(told.stdout.splitlines()[-1])


def density(t, v, a, w):
    """At the lower bound, in 50 digits: standing waves, or images of the start for short times."""
    t, v, a, w = (mpmath.mpf(float(x)) if not isinstance(x, mpmath.mpf) else x
                  for x in (t, v, a, w))  # fmt: skip
    u = t / a**2
    if u > mpmath.mpf(1) / 4:
        n = int(mpmath.sqrt(2 * 130 / (mpmath.pi**2 * u))) + 3
        still = mpmath.pi * mpmath.fsum(
            k * mpmath.sin(k * mpmath.pi * w) * mpmath.exp(-((k * mpmath.pi) ** 2) * u / 2)
            for k in range(1, n)
        )
    else:
        n = int(mpmath.sqrt(130 * u / 2)) + 3
        still = mpmath.fsum(
            (w + 2 * k) * mpmath.exp(-((w + 2 * k) ** 2) / (2 * u)) for k in range(-n, n + 1)
        ) / mpmath.sqrt(2 * mpmath.pi * u**3)
    return still / a**2 * mpmath.exp(-v * a * w - v**2 * t / 2)


def reached(t, v, a, w):
    """Probability of the lower bound by t, in 50 digits."""
    t, v, a, w = (mpmath.mpf(float(x)) for x in (t, v, a, w))
    u, y = t / a**2, 2 * v * a
    ever = (mpmath.exp(-y) - mpmath.exp(-y * w)) / mpmath.expm1(-y)
    n = int(mpmath.sqrt(2 * 130 / (mpmath.pi**2 * u))) + 3
    rest = mpmath.fsum(
        k * mpmath.sin(k * mpmath.pi * w) / ((v * a) ** 2 + (k * mpmath.pi) ** 2)
        * mpmath.exp(-((v * a) ** 2 + (k * mpmath.pi) ** 2) * u / 2)
        for k in range(1, n)
    )  # fmt: skip
    return ever - 2 * mpmath.pi * mpmath.exp(-v * a * w) * rest


def seen_from(choice, v, w):
    """Drift and start as they look from the bound of a choice."""
    return (-v, 1 - w) if choice else (v, w)


def densities(args, draw):
    """Density and distribution function at both bounds, |v| a up to 20."""
    draws = []
    for _ in range(args.draws):
        a, w = draw.uniform(0.3, 3.0), float(draw.integers(3, 98)) / 100
        v = draw.uniform(-20, 20) / a
        dt = a**2 / 100
        draws.append({"v": v, "a": a, "w": w, "dt": dt, "n": 301})
    told = ask(args.peer, what="densities", draws=draws)
    names = ("ours", "compiled", "python", "solved")
    worst = dict.fromkeys(names, (0.0, ""))
    relative, cumulated, mean, n_nan = 0.0, 0.0, 0.0, 0
    for d, (compiled, python), solved in zip(draws, told["found"], told["solved"], strict=True):
        v, a, w, dt = d["v"], d["a"], d["w"], d["dt"]
        model = DDM(v, a, w, 0.0)
        for choice in (0, 1):
            for share in SHARES:
                k = round(share * 100)
                t, seen = k * dt, seen_from(choice, v, w)
                true = density(t, seen[0], a, seen[1])
                log_ours = float(model.log_prob(t, float(choice)))
                found = dict(
                    zip(
                        names,
                        (math.exp(log_ours), *(x[1 - choice][k] for x in (compiled, python)),
                         solved[1 - choice][k]),
                        strict=True,
                    )
                )  # fmt: skip
                relative = max(relative, abs(float(log_ours - mpmath.log(true))))
                by_now = float(reached(t, seen[0], a, seen[1]))
                cumulated = max(cumulated, abs(float(model.cdf(t, float(choice))) - by_now))
                for name, value in found.items():
                    if not math.isfinite(value):
                        n_nan += 1
                        continue
                    apart = abs(value - float(true))
                    if apart > worst[name][0]:
                        where = f"t = {share:g} a^2, v a = {v * a:.1f}, w = {w:.2f}"
                        worst[name] = (apart, where)
        y = mpmath.mpf(v) * a
        ever = float((1 - mpmath.exp(-2 * y * w)) / (1 - mpmath.exp(-2 * y)))
        cumulated = max(cumulated, abs(float(model.probability(1.0)) - ever))
        mean = max(mean, abs(float(model.mean_decision_time()) - a * (ever - w) / v))
    print(f"pyddm {told['pyddm']}, numpy {told['numpy']}, scipy {told['scipy']}")
    print(f"densities: {args.draws} draws, |v| a up to 20, both bounds, {len(SHARES)} times each")
    for name, title in zip(
        names,
        ("clinode", "pyddm, its series compiled", "pyddm, its series in Python",
         "pyddm, solve_analytical"),
        strict=True,
    ):  # fmt: skip
        print(f"  {title:28s} {worst[name][0]:.1e} ({worst[name][1]})")
    print(f"  clinode, log density         {relative:.1e}; the peer's not finite: {n_nan}")
    print(f"  clinode, distribution        {cumulated:.1e}; mean decision time {mean:.1e}")


def slopes(args, draw):
    """Of the log density, against differences in 50 digits, and in the far tail."""
    worst, n_bad = 0.0, 0
    for number in range(100):
        a, w = draw.uniform(0.3, 3.0), draw.uniform(0.03, 0.97)
        v = draw.uniform(-20, 20) / a
        t = a**2 * draw.choice([0.02, 0.1, 0.29, 0.31, 1.0, 4.0])
        choice = number % 2
        given = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (v, a, w, 0.0)]
        found = torch.autograd.grad(DDM(*given).log_prob(t, float(choice)), given)

        def true(v, a, w, t0, t=t, choice=choice):
            seen = seen_from(choice, v, w)
            return mpmath.log(density(mpmath.mpf(float(t)) - t0, seen[0], a, seen[1]))

        at = [mpmath.mpf(x) for x in (v, a, w, 0.0)]
        for k, own in enumerate(found):
            order = tuple(int(j == k) for j in range(4))
            expected = float(mpmath.diff(true, at, order))
            worst = max(worst, abs(float(own) - expected) / max(1.0, abs(expected)))
    n = 100_000
    v, a = torch.from_numpy(draw.uniform(-20, 20, n)), torch.from_numpy(draw.uniform(0.3, 3, n))
    w = torch.from_numpy(draw.uniform(0.01, 0.99, n))
    given = [x.requires_grad_() for x in (v / a.detach(), a, w, torch.full((n,), 0.3).double())]
    value = DDM(*given).log_prob(0.3001, torch.arange(n) % 2)
    for one in (value, *torch.autograd.grad(value.sum(), given)):
        n_bad += int((~one.isfinite()).sum())
    print(f"slopes: largest relative difference of 400 {worst:.1e}; "
          f"not finite of {5 * n} at t - t0 = 1e-4: {n_bad}")  # fmt: skip


def quadrature(low: float, high: float, n: int = 400):
    """Places and weights of Gauss and Legendre."""
    places, weights = np.polynomial.legendre.leggauss(n)
    return low + (high - low) * (places + 1) / 2, weights * (high - low) / 2


def plain_density(t, v, a, w):
    """In float64, by 400 standing waves; for t above .01 a^2."""
    k = np.arange(1, 400)
    waves = k * np.sin(k * math.pi * np.multiply.outer(w, np.ones(1)))
    decay = np.exp(-((k * math.pi / a) ** 2) * np.multiply.outer(t, np.ones(1)) / 2)
    return math.pi / a**2 * np.exp(-v * a * w - v**2 * t / 2) * (waves * decay).sum(axis=-1)


def variants(args, draw):
    """What varies between trials: against quadrature, and pyddm's grid against the same."""
    draws = []
    for _ in range(12):
        a = draw.uniform(0.8, 2.0)
        given = {
            "v": draw.uniform(-3, 3), "a": a, "w": float(draw.integers(30, 71)) / 100,
            "t0": 0.3, "sz": float(draw.integers(10, 51)) / 100, "st": 0.2,
            "sv": draw.uniform(0.2, 2.0), "dt": 0.001, "end": 2.0,
        }  # fmt: skip
        draws.append(given)
    told = ask(args.peer, what="variants", draws=draws)
    ours, theirs = {}, {}
    for d, peer in zip(draws, told["found"], strict=True):
        v, a, w, t0 = d["v"], d["a"], d["w"], d["t0"]
        for choice in (0, 1):
            seen = seen_from(choice, v, w)
            for k in (450, 700, 1200, 1900):
                t = k * d["dt"]
                nodes, weights = quadrature(0.5 - d["sz"] / 2, 0.5 + d["sz"] / 2)
                start = (weights * plain_density(t - t0, seen[0], a, nodes)).sum() / d["sz"]
                nodes, weights = quadrature(t0 - 0.1, min(t0 + 0.1, t - 0.01 * a**2))
                late = (weights * plain_density(t - nodes, seen[0], a, seen[1])).sum() / d["st"]
                nodes, weights = quadrature(-12.0, 12.0)
                bell = np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi) * weights
                drifts = seen[0] + d["sv"] * nodes
                drift = (bell * plain_density(t - t0, drifts, a, seen[1])).sum()
                true = {"start": start, "non-decision": late, "drift": drift}
                models = {
                    "start": DDM(v, a, 0.5, t0, start_range=d["sz"]),
                    "non-decision": DDM(v, a, w, t0, non_decision_range=d["st"]),
                    "drift": DDM(v, a, w, t0, drift_spread=d["sv"]),
                }
                for name, value in true.items():
                    own = float(models[name].log_prob(t, float(choice)).exp())
                    ours[name] = max(ours.get(name, 0.0), abs(own - value))
                    if name in peer:
                        apart = abs(peer[name][1 - choice][k] - value)
                        theirs[name] = max(theirs.get(name, 0.0), apart)
    print("what varies between trials: largest difference of a density from quadrature, 96 each")
    for name, apart in ours.items():
        other = f"pyddm's grid {theirs[name]:.1e}" if name in theirs else "not in pyddm"
        print(f"  {name:14s} clinode {apart:.1e}, {other}")


def with_lines(t, v, a, w, slope, choice):
    """Density with bounds that close in on straight lines, in 50 digits (Anderson 1960)."""
    upper, lower = a * (1 - w), a * w
    if choice == 0:
        v, upper, lower = -v, lower, upper
    t, v, upper, lower, slope = (mpmath.mpf(float(x)) for x in (t, v, upper, lower, slope))
    b1, b2 = -slope - v, slope - v  # lines upper + b1 t and -lower + b2 t, without drift
    scale = -2 * ((upper + lower) / t + b1 - b2)
    total = mpmath.fsum(
        mpmath.exp(scale * n * ((n + 1) * upper + n * lower))
        * ((2 * n + 1) * upper + 2 * n * lower)
        - mpmath.exp(scale * (n + 1) * (n * upper + (n + 1) * lower))
        * ((2 * n + 1) * upper + 2 * (n + 1) * lower)
        for n in range(40)
    )
    return float(mpmath.exp(-((upper + b1 * t) ** 2) / t / 2) / mpmath.sqrt(2 * mpmath.pi)
                 / t ** mpmath.mpf(1.5) * total)  # fmt: skip


def collapsing(args, draw):
    """Bounds that close in, against their closed form: both routes are grids."""
    draws = []
    for _ in range(6):
        a = draw.uniform(1.0, 2.0)
        draws.append({"v": draw.uniform(-2, 2), "a": a, "w": float(draw.integers(30, 71)) / 100,
                      "slope": draw.uniform(0.1, 0.3), "dt": 0.005, "end": 1.5})  # fmt: skip
    told = ask(args.peer, what="collapsing", draws=draws)
    worst, seconds = dict.fromkeys(("ours", "numerical", "analytical"), 0.0), [0.0, 0.0]
    for d, peer in zip(draws, told["found"], strict=True):
        half, slope = d["a"] / 2, d["slope"]
        begun = time.process_time()
        evidence, start = Wiener(d["v"]), (d["w"] - 0.5) * d["a"]
        model = FirstPassage(
            evidence,
            lambda t, half=half, slope=slope: slope * t - half,
            lambda t, half=half, slope=slope: half - slope * t,
            start=start,
            horizon=d["end"],
            n_places=200,
            n_times=300,
        )
        seconds[0] += time.process_time() - begun
        seconds[1] += peer["seconds"]
        for choice in (0, 1):
            for k in (20, 60, 120, 200, 280):
                true = with_lines(k * d["dt"], d["v"], d["a"], d["w"], slope, choice)
                found = {
                    "ours": float(model.log_prob(k * d["dt"], float(choice)).exp()),
                    "numerical": peer["numerical"][1 - choice][k],
                    "analytical": peer["analytical"][1 - choice][k],
                }
                for name, value in found.items():
                    worst[name] = max(worst[name], abs(value - true))
    print("bounds closing in on lines: 6 draws, 200 places, steps of .005, from the closed form")
    print(f"  clinode {worst['ours']:.1e} ({seconds[0] / 6:.2f} s), pyddm's grid "
          f"{worst['numerical']:.1e} ({seconds[1] / 6:.3f} s), its closed form "
          f"{worst['analytical']:.1e}")  # fmt: skip


def speed(args, draw):
    """A million log densities with slopes: CPU seconds, in turns, the best of three each."""
    n, seed = args.trials, args.seed
    draw = np.random.default_rng(seed)
    rt = torch.from_numpy(0.35 + 2 * draw.random(n))
    choice = torch.from_numpy((draw.random(n) < 0.6).astype(float))

    def once(shape: tuple[int, ...]) -> Callable[[], None]:
        def call():
            given = [torch.full(shape, x, dtype=torch.float64, requires_grad=True) for x in AT]
            DDM(*given).log_prob(rt, choice).sum().backward()

        return call

    rounded = torch.round(rt / 0.005) * 0.005
    trials, counts = Trials.read(rounded, choice).counted()

    def counted():
        given = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in AT]
        (counts * DDM(*given).log_prob(trials.rt, trials.choice)).sum().backward()

    calls = {"shared": once(()), "own": once((n,)), "counted": counted}
    ours, theirs = dict.fromkeys(calls, math.inf), {}
    for _ in range(3):
        for name, call in calls.items():
            for _ in range(3):
                begun = time.process_time()
                call()
                ours[name] = min(ours[name], time.process_time() - begun)
        told = ask(args.peer, what="speed", n=n, seed=seed)
        for name in ("python", "compiled", "solve", "table"):
            theirs[name] = min(theirs.get(name, math.inf), told[name])
    each = 5  # densities that forward differences in four parameters take
    print(f"{n} log densities with slopes in four parameters, CPU seconds of one thread")
    print(
        f"  clinode, parameters shared {ours['shared']:.3f}, one set a trial {ours['own']:.3f}, "
        f"counted at {len(trials)} different trials {ours['counted']:.4f}"
    )
    for title, seconds, own in (
        ("its series compiled, regular times", each * theirs["compiled"], "shared"),
        ("its series at the trials' own times", each * theirs["python"], "shared"),
        ("solve_analytical, one set a trial", each * theirs["solve"] * n, "own"),
        ("LossLikelihood, times rounded to 5 ms", each * theirs["table"], "counted"),
    ):
        print(f"  pyddm x {each}: {title:38s} {seconds:9.2f}, ratio {seconds / ours[own]:.1f}")


if __name__ == "__main__":
    main()
