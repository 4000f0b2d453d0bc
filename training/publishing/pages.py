"""The marked parts of README.md and of the pages in docs/, written from `benchmarks/results/*.json`.

A part starts at `<!-- results:NAME -->` and ends at `<!-- /results -->`. NAME is a file of results, and what comes
before its first `-` says how to write it: one of `PARTS`. Of `release-NAME`, it is `results.json` of the released
checkpoint.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audiopg.training.evaluation.results import FROZEN, LOG_MEL, RANDOM_ENCODER, format_results
from audiopg.training.evaluation.scores import paired_interval
from audiopg.training.publishing.cards import benchmarks_of, probe_report
from audiopg.training.publishing.eight_bits import in_words

ROOT = Path(__file__).parents[2]
RESULTS, RELEASES = ROOT / "benchmarks/results", ROOT / "checkpoints"
NOT_KNOWN = "not known"
_PART = re.compile(r"(<!-- results:([\w-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def _measured_on(results: dict[str, Any]) -> str:
    versions = results["versions"]
    commit = results["commit"] or NOT_KNOWN
    return f"Measured on {results['hardware']}, torch {versions['torch']}, commit {commit}"


def demo_part(results: dict[str, Any]) -> str:
    """What `make demo` printed on the machine that it was recorded on."""
    run, real = results["pretraining"], "Real recordings: not measured."
    if benchmarks := benchmarks_of(results):
        real = "\n\n".join(
            f"{format_results(one)}\n\nLinear probe of frozen features; {one['protocol']}." for one in benchmarks
        )
    lines = [
        f"{run['clips']} clips in {run['seconds']:.0f} s ({run['clips_per_second']} clips/s), final loss "
        f"{run['loss']:.3f}; the whole demo took {results['seconds']:.0f} s.",
        "",
        "| decoded from the frozen embedding, R² on held-out clips | pre-trained | random encoder |",
        "|---|---|---|",
        *(f"| {name} | {r['pretrained']:.3f} | {r['random']:.3f} |" for name, r in results["factors"].items()),
        "",
        real,
    ]
    return "\n".join([*lines, "", f"{_measured_on(results)}; `benchmarks/results/demo.json`."])


def _speed_table(contenders: list[dict[str, Any]], ours: str) -> list[str]:
    """Seconds of sound that each contender makes in a second, by threads; of others also how much faster we are."""
    threads = sorted({row["threads"] for row in contenders})
    speeds = {
        (row["title"], row["makes"], row["threads"]): f"error: {row['error']}"
        if "error" in row
        else f"{row['times_real_time']:,}"
        + ("" if row["title"].startswith("AudioPG") else f" ({ours} makes {row['ratio']:.1f} times that)")
        for row in contenders
    }
    columns = " | ".join(f"{count} thread{'s' * (count > 1)}" for count in threads)
    lines = [f"| seconds of sound in a second | {columns} |", "|---" * (1 + len(threads)) + "|"]
    for title, makes in dict.fromkeys((row["title"], row["makes"]) for row in contenders):
        cells = " | ".join(speeds[title, makes, count] for count in threads)
        lines.append(f"| {title}, {makes} | {cells} |")
    return lines


def voices_part(results: dict[str, Any]) -> str:
    """What `benchmarks/voices.py` measured: speed beside others."""
    lines = _speed_table(results["contenders"], "AudioPG")
    return "\n".join([*lines, "", f"{_measured_on(results)}; `{results['command']}`."])


def patterns_part(results: dict[str, Any]) -> str:
    """What `benchmarks/patterns.py` measured: images a second of each set, the best batch size."""
    rows = results["sets"]
    threads = sorted({row["threads"] for row in rows})
    columns = " | ".join(f"{count} thread{'s' * (count > 1)}" for count in threads)
    lines = [f"| images of {results['size']} pixels in a second | {columns} |", "|---" * (1 + len(threads)) + "|"]
    for name in dict.fromkeys(row["set"] for row in rows):
        best = [
            max(row["images_per_second"] for row in rows if (row["set"], row["threads"]) == (name, count))
            for count in threads
        ]
        lines.append(f"| `{name}` | {' | '.join(f'{rate:,.0f}' for rate in best)} |")
    return "\n".join([*lines, "", f"{_measured_on(results)}; `{results['command']}`."])


def synthesis_part(results: dict[str, Any]) -> str:
    """What `benchmarks/synthesis.py` measured: speed beside others, by stage, and memory."""
    contenders = results["contenders"]
    lines = _speed_table(contenders, "`reference`")
    threads = sorted({row["threads"] for row in contenders})
    stages = [row for row in results["stages"] if row["threads"] == threads[0]]
    middle = sorted({row["batch_size"] for row in stages})[len({row["batch_size"] for row in stages}) // 2]
    lines.append("")
    for row in stages:
        if row["batch_size"] == middle:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in row["milliseconds_per_clip"].items())
            lines += [f"Milliseconds of a clip of `{row['preset']}` in a batch of {middle}: {parts}.", ""]
    load, memory, soak = results["load_average"], results["memory"][-1], results["soak"]
    held = soak["megabytes"]
    lines += [
        f"Peak memory beyond what the process holds before: {memory['per_clip']:.1f} MB a clip in a batch of "
        f"{memory['batch_size']}; the process held {held[0]:.0f} MB after a tenth of {soak['batches']} batches and "
        f"{held[-1]:.0f} MB after the last.",
        "",
        f"{_measured_on(results)}, while others used the machine too (load {load['before']:.1f} on {load['cores']} "
        f"cores): the ratios, measured in turns, say more than the numbers; `{results['command']}`.",
    ]
    return "\n".join(lines)


def finetuning_part(results: dict[str, Any]) -> str:
    """What `training/finetune.py` measured, controls included."""
    recipe, rows = results["recipe"], results["results"]
    seconds = next(row["seconds_per_round"] for row in rows.values() if "seconds_per_round" in row)
    cost = f"Recipe `{recipe['name']}`, {recipe['epochs']} epochs, the last one counts; {seconds:.0f} s a fold"
    return f"{format_results(results)}\n\n{cost}. {_measured_on(results)}."


def features_part(results: dict[str, Any]) -> str:
    """What `benchmarks/feature_extraction.py` measured."""
    lines = ["| clips at a time, threads | AudioPGFeatureExtractor, clips/s | ASTFeatureExtractor, clips/s | ratio |"]
    lines.append("|---|---|---|---|")
    for row in results["rows"]:
        speed, ratio = row["clips_per_second"], row["speedup"]["wall"]
        lines.append(f"| {row['clips']}, {row['threads']} | {speed['audiopg']} | {speed['ast']} | {ratio} |")
    return "\n".join([*lines, "", f"{_measured_on(results)}."])


def latency_part(results: dict[str, Any]) -> str:
    """What `benchmarks/latency.py` measured: milliseconds and memory for a second of sound."""
    threads = sorted({row["threads"] for row in results["rows"]})
    found = {(row["title"], row["threads"]): row for row in results["rows"]}
    columns = " | ".join(f"ms, {count} thread{'s' * (count > 1)}" for count in threads)
    lines = [f"| for a second of sound | {columns} | MB | the process holds, MB |", "|---" * (3 + len(threads)) + "|"]
    for title in dict.fromkeys(row["title"] for row in results["rows"]):
        rows = [found[title, count] for count in threads]
        speeds = " | ".join(f"{row['milliseconds']:.2f}" for row in rows)
        lines.append(f"| {title} | {speeds} | {rows[0]['memory_per_second']:.1f} | {rows[0]['held']:,.0f} |")
    layers, load = results["layers"], results["load_average"]
    lines += [
        "",
        f"One clip of {results['clip_seconds']} s at a time, samples to embedding, medians of {results['rounds']} "
        f"turns. Ours end at layer {layers['read']} of {layers['of']}, whose tokens `embed` reads; AST computes all. "
        f"Memory with {threads[0]} thread{'s' * (threads[0] > 1)}: the peak of a fresh "
        "process beyond its libraries, weights included. "
        f"{_measured_on(results)}, load {load['before']:.1f} on {load['cores']} cores; `{results['command']}`.",
    ]
    return "\n".join(lines)


def eight_bits_part(results: dict[str, Any]) -> str:
    """What `training/export_onnx.py --int8 --data_dir` measured."""
    told = in_words(results)
    return f"{told[0].upper()}{told[1:]}. {results['protocol']}. {_measured_on(results)}."


def probe_part(results: dict[str, Any]) -> str:
    """What `training/probe.py` measured."""
    report = probe_report(results)
    how = f"{report['probe'].capitalize()} probe of `{results['checkpoint']}`; {report['protocol']}"
    return f"{format_results(report)}\n\n{how}. {_measured_on(results)}."


def release_part(results: dict[str, Any]) -> str:
    """What a released checkpoint's frozen `embed` is worth, beside what needs no pre-training."""
    benchmarks, read = benchmarks_of(results), results["read"]
    rows = {
        "log-mel, mean and deviation over time": LOG_MEL,
        "the encoder with random weights, read the same way": f"{RANDOM_ENCODER} (seed {benchmarks[0]['seed']}){read}",
        f"`{results['recipe']}`, what `embed` gives": f"{FROZEN}{read}",
        f"`{results['recipe']}`, the mean of its patches": FROZEN,
    }
    titles = [f"{one['dataset']}, {one['metric'].replace('_', ' ')} in %" for one in benchmarks]
    lines = [f"| {benchmarks[0]['probe']} probe of frozen features | {' | '.join(titles)} |"]
    lines.append("|---" * (1 + len(titles)) + "|")
    for title, name in rows.items():
        found = [one["results"][name] for one in benchmarks]
        cells = [f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" for row in found]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    compared = []
    for one in benchmarks:
        found = one["results"]
        above = [
            "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *(100 * value for value in paired_interval(found[f"{FROZEN}{read}"]["right"], found[name]["right"]))
            )
            for name in list(rows.values())[:2]
        ]
        compared.append(f"{one['dataset']} {above[0]} and {above[1]}")
    lines += ["", f"Points above the log-mel, and above random weights, clip by clip: {'; '.join(compared)}."]
    run = results["pretraining"]
    told = "; ".join(f"{one['dataset']}: {one['protocol']}" for one in benchmarks)
    where = f"{run['hardware']} in {run.get('processes', 1)} processes"
    cost = f"{run['clips']:,} clips in {run['seconds'] / 60:.0f} minutes on {where}"
    lines += ["", f"In brackets 95 % intervals, of folds or of clips drawn again. {told}."]
    return "\n".join([*lines, "", f"Pre-training: {cost}. {_measured_on(results)}."])


def corpus_part(results: dict[str, Any]) -> str:
    """What `benchmarks/corpus.py` measured, and what a million hours come to at these rates."""
    machines = (1, 10, 100, 1000)
    titles = ["of sound in a second", "a million hours: of a machine", *(f"days on {n:,}" for n in machines)]
    lines = [f"| model | recordings | {' | '.join(titles)} | result |", "|---" * (3 + len(titles)) + "|"]
    for row in results["rows"]:
        hours = 1e6 / row["times_real_time"]
        days = " | ".join(f"{hours / 24 / count:,.1f}" for count in machines)
        rate = f"{row['times_real_time']:,.{int(row['times_real_time'] < 10)}f}"  # the hours follow from it
        terabytes = 1e6 * 3600 / row["seconds_each"] * 4 * row["width"] / 1e12
        lines.append(
            f"| {row['model']} | {row['recordings']} | {rate} s | {hours:,.0f} h | {days} | {terabytes:.2g} TB |"
        )
    told = (
        "A machine is the one that was measured, one process with its threads; the result has a row for each recording"
    )
    at = f"at a load of {results['load_average']:.1f}"
    return "\n".join([*lines, "", f"{told}. {_measured_on(results)}, {at}; `{results['command']}`."])


def kit_part(results: dict[str, Any]) -> str:
    """What `training/benchmark_kits.py KIT --output` measured."""
    lines = [f"| {results['checkpoint']} | score |", "|---|---|"]
    lines += [f"| {task} | {100 * score:.2f} % |" for task, score in results["results"].items()]
    return "\n".join([*lines, "", f"{_measured_on(results)}."])


def ablation_part(results: dict[str, Any], format_table: Callable[[dict[str, Any]], str]) -> str:
    """What `training/ablate.py` measured, in the table that it writes itself."""
    machines = "; ".join(dict.fromkeys(one["hardware"] for one in results["environments"]))
    torches = ", ".join(dict.fromkeys(one["versions"]["torch"] for one in results["environments"]))
    commits = ", ".join(dict.fromkeys(one["commit"] or NOT_KNOWN for one in results["environments"]))
    measured = f"Each run measured on {machines}, torch {torches}, commits {commits}"
    return f"{format_table(results)}\n{measured}; `{results['command']}`."


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "corpus_cpu": corpus_part,
    "corpus_cuda": corpus_part,
    "demo": demo_part,
    "feature_extraction_cpu": features_part,
    "finetuning": finetuning_part,
    "int8": eight_bits_part,
    "latency_cpu": latency_part,
    "mteb": kit_part,
    "probe": probe_part,
    "patterns_cpu": patterns_part,
    "release": release_part,
    "synthesis_cpu": synthesis_part,
    "voices_cpu": voices_part,
}
"""By what the names of their results begin with; ablations and milestones have tables of their own."""


def milestones_part(results: dict[str, Any], format_table: Callable[[dict[str, Any]], str]) -> str:
    """What `training/milestones.py` measured, in the table that it writes itself."""
    return f"{format_table(results)}\nRead: {results['read']}. {_measured_on(results)}; `{results['command']}`."


def render(text: str, tables: Mapping[str, Callable[[dict[str, Any]], str]]) -> str:
    """`text` with every marked part written anew from its results file.

    Args:
        text: Of a page.
        tables: How the results of an `ablation`, and of `milestones`, are written as tables.

    Returns:
        The text, all else unchanged.

    Raises:
        KeyError: for a part that is not one of `PARTS`.
    """
    parts = {
        **PARTS,
        "ablation": lambda results: ablation_part(results, tables["ablation"]),
        "milestones": lambda results: milestones_part(results, tables["milestones"]),
    }

    def part(match: re.Match[str]) -> str:
        kind, _, name = match[2].partition("-")
        path = RELEASES / name / "results.json" if kind == "release" else RESULTS / f"{match[2]}.json"
        if not path.exists():
            return f"{match[1]}Not measured.\n{match[3]}"
        results = json.loads(path.read_text(encoding="utf-8"))
        return f"{match[1]}{parts[kind](results)}\n{match[3]}"

    return _PART.sub(part, text)


def out_of_date(tables: Mapping[str, Callable[[dict[str, Any]], str]]) -> dict[Path, str]:
    """The pages whose marked parts differ from the results, with the text that they should have; as `render`."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages = {path: path.read_text(encoding="utf-8") for path in paths}
    return {page: new for page, text in pages.items() if (new := render(text, tables)) != text}
